"""Where a row comes from, as its column ``origin`` says it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

NO_MODEL = "no model"
"""As the generator of what people or a program wrote."""

Split = Literal["training", "validation"]


def origin(sources: Iterable[Mapping[str, Any]], generator: str = "", split: Split = "training") -> str:
    """The origin of a row as JSON: ``generator``, ``split`` and ``sources``.

    Args:
        sources: each with a ``place`` (a path, with its lines for a conversation about some of them; ``#12`` or a
            commit; an export and the thread in it; a prompt), and the ``blob`` and ``commit`` ids where git has it. A
            file that fills several rows is the source of each: their ``part`` tells them apart.
        generator: the model that wrote it; empty when none did.
    """
    return json.dumps({"generator": generator or NO_MODEL, "split": split, "sources": list(sources)})


def in_split(told: str, split: Split) -> str:
    """The same origin in another split."""
    return json.dumps({**json.loads(told), "split": split})
