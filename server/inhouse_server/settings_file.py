"""`inhouse.toml` before its settings are checked: what must be known sooner than pydantic can be imported."""

from __future__ import annotations

import os

FILE_NAME = "inhouse.toml"


def may_complete_inline(root: str) -> bool:
    """Whether the file at ``root`` or a variable could turn inline completion on; a file that cannot be read could."""
    if "INHOUSE_INLINE_COMPLETION_ENABLED" in os.environ:
        return True
    try:
        with open(os.path.join(root, FILE_NAME), encoding="utf-8") as file:  # noqa: PTH123, PTH118
            text = file.read()
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    if "inline_completion" not in text and "\\" not in text:  # A key may be written with escapes.
        return False
    import tomllib

    try:
        section = tomllib.loads(text).get("inline_completion", {})
    except ValueError:
        return True
    return not isinstance(section, dict) or section.get("enabled", False) is not False
