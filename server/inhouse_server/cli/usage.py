"""What is wrong with an option is told before anything is loaded, and with exit code 2."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

import typer

from inhouse_retrieval.errors import InhouseError

NEVER = "never"
_CHOICE = re.compile(r"(?:Value error, )?(?P<given>'[^']*') is not one of (?P<valid>'[^']*'(?:, '[^']*')*)\.")
_ZERO = re.compile(r"0+[mhdw]?")


def plain_message(message: str) -> str:
    """A usage error of Typer's without pydantic's words, and with the nearest valid name where one was misspelt."""
    wrong = _CHOICE.fullmatch(message)
    if wrong is None:
        return message
    valid = re.findall(r"'([^']*)'", wrong["valid"])
    near = difflib.get_close_matches(wrong["given"].strip("'"), valid, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{wrong['given']} is not known. {hint}There are {', '.join(valid)}."


def known_recipe(name: str | None) -> str | None:
    """``name``, where a recipe is called so or a file is there; what the file says is looked at later."""
    from inhouse_training.recipe import check_recipe_name

    return _told(check_recipe_name, name)


def interval(text: str | None) -> str | None:
    """``text``, where it writes a length of time."""
    from inhouse_training.interval import parse_interval

    return _told(parse_interval, text)


def lifetime(text: str) -> str:
    """``text``, where it writes a length of time that is longer than 0, or :data:`NEVER`."""
    if _ZERO.fullmatch(text):
        raise typer.BadParameter(f"{text!r} must be longer than 0, such as 12h or 90d; or write {NEVER}.")
    if text != NEVER:
        interval(text)
    return text


def asked(text: str) -> str:
    """``text``, where something is asked."""
    if not text.strip():
        raise typer.BadParameter("the question is empty; ask something about the repository.")
    return text


def _told(check: Callable[[str], object], value: str | None) -> str | None:
    """``value`` after ``check`` looked at it; its complaint is one about usage."""
    if value is not None:
        try:
            check(value)
        except InhouseError as error:
            raise typer.BadParameter(f"{error.problem} {error.remedy}") from error
    return value
