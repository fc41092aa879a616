"""Which chat template a base model has, as a digest: an adapter is trained on the tokens that one template renders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def template_digest(folder: Path) -> str:
    """The first 16 hex digits of the SHA-256 of the template in a base model's folder; empty when it has none."""
    try:
        template: object = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except OSError:
        try:
            config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        template = config.get("chat_template") if isinstance(config, dict) else None
    if not template:
        return ""
    # Older tokenizers name several templates in a list.
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]
