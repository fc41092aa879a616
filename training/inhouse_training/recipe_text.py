"""A recipe as a file: what :func:`~inhouse_training.recipe.load_recipe` reads again as the same recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .recipe import Recipe


def recipe_text(recipe: Recipe, remarks: Sequence[str] = ()) -> str:
    """TOML with every value written out; ``remarks`` are comments at its head, a line each."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    del values["name"]  # a recipe takes its name from its file
    lines = [f"# {line}" for remark in remarks for line in remark.splitlines()] + [""]
    lines += [f"{key} = {_value(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for section, content in values.items():
        if isinstance(content, dict):
            lines += ["", f"[{section}]", *(f"{key} = {_value(value)}" for key, value in content.items())]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    # Strings, whole numbers, fractions and booleans are written in TOML as in JSON.
    return json.dumps(value, ensure_ascii=False)
