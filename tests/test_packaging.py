"""What is installed is what is written here."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        ".".join(file.parent.relative_to(folder).parts)
        for folder in (ROOT / "retrieval", ROOT / "training", ROOT / "server")
        for file in folder.rglob("__init__.py")
    }
    assert {"inhouse_training.recipes" if name == "recipes" else name for name in there} == set(listed)
