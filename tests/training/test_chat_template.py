"""A chat template is part of what an adapter was trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from inhouse_retrieval import Repository
from inhouse_training import BaseModel, Recipe, open_run
from inhouse_training.chat_template import template_digest


def test_a_template_is_found_in_either_place(tmp_path: Path) -> None:
    assert template_digest(tmp_path) == ""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    inside = template_digest(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}\n")
    assert inside == template_digest(tmp_path) != ""
    (tmp_path / "chat_template.jinja").write_text("{{ others }}")
    assert template_digest(tmp_path) != inside


def test_another_template_makes_another_run(
    history: Repository, tiny_base: BaseModel, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    changed = BaseModel("tiny", Path(shutil.copytree(tiny_base.path, tmp_path / "base")), tiny_base.sha256, "")
    before = open_run(history, tmp_path, tiny_recipe, changed).directory
    assert before == open_run(history, tmp_path, tiny_recipe, tiny_base).directory
    (changed.path / "chat_template.jinja").write_text("{{ messages }}")
    assert open_run(history, tmp_path, tiny_recipe, changed).directory != before
