"""What is installed is what is written here."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from inhouse_server.version import VERSION

ROOT = Path(__file__).parent.parent


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        ".".join(file.parent.relative_to(folder).parts)
        for folder in (ROOT / "retrieval", ROOT / "training", ROOT / "server")
        for file in folder.rglob("__init__.py")
    }
    there = {"inhouse_training.recipes" if name == "recipes" else name for name in there}
    assert there | {"inhouse_server.web"} == set(listed), "the web page is one of files alone"


def test_every_file_of_the_web_page_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    page = ROOT / "server" / "inhouse_server" / "web"
    data = {path for pattern in listed["inhouse_server.web"] for path in page.glob(pattern)}
    assert page / "index.html" in data
    assert data == set(page.iterdir())
    assert all(path.is_file() and not path.name.startswith(".") for path in data), "setuptools takes no other"


def test_the_version_in_the_code_is_the_distributions() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


@pytest.mark.parametrize(("client", "most"), [("vscode", 600), ("neovim", 540), ("emacs", 300)])
def test_editor_clients_stay_thin(client: str, most: int) -> None:
    """What is worth more lines belongs to the server, where every editor has it. Blank lines and comments are free."""
    folder = ROOT / "editor-clients" / client
    sources = [
        file
        for file in folder.rglob("*")
        if file.suffix in {".ts", ".lua", ".el"} and not {"node_modules", "dist"} & set(file.parts)
    ]
    lines = [line.strip() for file in sources for line in file.read_text().splitlines()]
    code = [line for line in lines if line and not line.startswith(("//", "/*", "*", "--", ";"))]
    assert 150 < len(code) <= most
