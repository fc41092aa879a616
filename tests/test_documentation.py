"""The documentation names only commands, options, settings, files and headings that exist; the README all commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

from inhouse_server.cli.app import app
from inhouse_server.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.splitlines()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMANDS = typer.main.get_command(app)
DEFAULT = "change"
"""The command that `inhouse review` runs where none is named."""


def shell_lines(text: str) -> Iterator[str]:
    """Every `inhouse …` of a page: in backticks, and in shell blocks without the comment that follows."""
    for language, block in FENCE.findall(text):
        if language in {"sh", "bash", "console"}:
            yield from (line.split(" #")[0].strip() for line in block.splitlines() if line.startswith("inhouse "))
    yield from re.findall(r"`(inhouse [a-z][^`]*)`", FENCE.sub("", text))


def unknown_words(line: str) -> list[str]:
    """Commands and options in ``line`` that the command line does not have. `a|b` means either."""
    command: Any = COMMANDS
    words = shlex.split(line.replace("…", ""))[1:]
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        names = words[0].split("|")
        if all(name in command.commands for name in names):
            command = command.commands[names[0]]
            words = words[1:]
        elif DEFAULT in command.commands:
            break
        else:
            return words[:1]
    if isinstance(command, TyperGroup) and DEFAULT in command.commands:
        command = command.commands[DEFAULT]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words if word.startswith("--") and word not in known | {"--help"}]


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert {line: words for line in shell_lines(text) if (words := unknown_words(line))} == {}


def test_unknown_words_are_noticed() -> None:
    assert unknown_words("inhouse search --lines 3") == []
    assert unknown_words("inhouse adapters list|show") == []
    assert unknown_words("inhouse find --lines 3") == ["find"]
    assert unknown_words("inhouse search --colour red") == ["--colour"]
    assert unknown_words("inhouse eval retrievals") == ["retrievals"]
    assert unknown_words("inhouse eval --generate 3 --grade") == ["--grade"]
    assert unknown_words("inhouse adapters list|publish") == ["list|publish"]
    assert unknown_words("inhouse review --pr 3 --publish") == ["--publish"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    local = [link for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not leads_somewhere(ROOT / page, link)] == []


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether the file is there and, for `file#heading`, the heading, too."""
    path, _, heading = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not heading or not target.is_file():
        return target.exists()
    return heading in {anchor(line) for line in target.read_text(encoding="utf-8").splitlines() if line.startswith("#")}


def anchor(heading: str) -> str:
    """A heading's address, as forges make it: lower case, hyphens for spaces, punctuation left out."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_settings_are_accepted(page: str) -> None:
    """A TOML block is an `inhouse.toml`, but in the pages about training, where it is a recipe or a search space."""
    if page in {"training/README.md", "docs/fine-tuning.md"}:
        return
    for language, block in FENCE.findall((ROOT / page).read_text(encoding="utf-8")):
        if language == "toml":
            Settings.model_validate(tomllib.loads(block))


def test_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = text.split("## Commands")[1].split("##")[0]
    assert isinstance(COMMANDS, TyperGroup)
    for name, command in COMMANDS.commands.items():
        if command.hidden:
            continue
        entry = re.search(rf"`{name}(?: ([^`]*))?`", listed)
        assert entry, f"{name} is not listed"
        if isinstance(command, TyperGroup):
            inner = {sub for sub, child in command.commands.items() if not child.hidden}
            assert set(re.findall(r"[a-z-]+", entry.group(1) or "")) == inner, name
