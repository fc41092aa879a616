"""What is installed is what is written here."""

from __future__ import annotations

import tomllib
from pathlib import Path

from inhouse_server.version import VERSION

ROOT = Path(__file__).parent.parent


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        ".".join(file.parent.relative_to(folder).parts)
        for folder in (ROOT / "retrieval", ROOT / "training", ROOT / "server")
        for file in folder.rglob("__init__.py")
    }
    assert {"inhouse_training.recipes" if name == "recipes" else name for name in there} == set(listed)


def test_every_file_of_the_web_page_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = ROOT / "server" / "inhouse_server"
    data = {path for pattern in listed["inhouse_server"] for path in package.glob(pattern)}
    assert data > set((package / "web").iterdir())


def test_the_version_in_the_code_is_the_distributions() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
