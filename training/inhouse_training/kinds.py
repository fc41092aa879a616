"""The kinds of rows in a dataset. A module of its own: the command line names them before anything heavy is loaded."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal[
    "file", "page", "conversation", "written", "change", "thread", "edit", "completion", "review", "replay",
    "qa", "explanation", "relation", "raft", "absent", "lookup",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
