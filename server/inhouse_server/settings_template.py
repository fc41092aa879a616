"""What `inhouse init` writes: every setting with its meaning, its default and what was detected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from inhouse_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Detected:
    """What was found out about one setting.

    Attributes:
        remark: a sentence that is written above it.
        value: shown in place of the default; ``None`` keeps that.
    """

    remark: str
    value: str | int | list[str] | None = None


def settings_template(detected: Mapping[str, Detected]) -> str:
    """A commented `inhouse.toml` that says what each key means and which value holds without it.

    Args:
        detected: by key, such as ``"base_model"`` and ``"forge.kind"``.
    """
    lines = ["# inhouse.toml: settings of inhouse for this repository. To change one, remove the '#' in front of it.",
             "# Values are the defaults, unless an example or something detected is announced.", ""]  # fmt: skip
    sections: list[str] = []
    for key, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            sections += ["", f"# {(section.__doc__ or '').strip()}", f"[{key}]"]
            for inner, inner_field in section.model_fields.items():
                sections += _lines(inner, inner_field, detected.get(f"{key}.{inner}"))
        else:
            lines += _lines(key, field, detected.get(key))
    return "\n".join([*lines, *sections]) + "\n"


def _lines(key: str, field: FieldInfo, detected: Detected | None) -> list[str]:
    value = field.get_default(call_default_factory=True)
    remark = [f"# Detected: {detected.remark}"] if detected else []
    note = ""
    if detected and detected.value is not None:
        value = detected.value
    elif value is None:
        value, note = (field.examples or [""])[0], "  # an example; not set by default"
    return [f"# {field.description}", *remark, f"# {key} = {_toml(value)}{note}"]


def _toml(value: Any) -> str:
    """``value`` in TOML, of which JSON's texts, numbers, truth values and lists are a part."""
    return json.dumps(value, ensure_ascii=False)
