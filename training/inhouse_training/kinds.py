"""The kinds of rows in a dataset. A module of its own: the command line names them before anything heavy is loaded."""

from __future__ import annotations

from typing import Literal

Kind = Literal["file", "page", "conversation", "change", "thread", "edit", "replay"]
KINDS: tuple[Kind, ...] = ("file", "page", "conversation", "change", "thread", "edit", "replay")
