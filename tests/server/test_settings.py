"""`inhouse.toml`: what is accepted, and what a user reads when something is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from inhouse_server.settings import InvalidSettings, Settings, load_settings
from inhouse_server.settings_template import Detected, settings_template


def write(root: Path, text: str) -> Path:
    (root / "inhouse.toml").write_text(text)
    return root


def test_without_a_file_everything_has_a_default(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {}) == Settings()


def test_the_file_and_then_the_variables_win(tmp_path: Path) -> None:
    write(tmp_path, "[server]\nport = 9000\nhost = '127.0.0.2'\n")
    server = load_settings(tmp_path, {"INHOUSE_SERVER_PORT": "0"}).server
    assert (server.port, server.host) == (0, "127.0.0.2")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("stat_dir = 'x'\n", ["inhouse.toml:1", "stat_dir", "'state_dir'"]),
        ("\n[server]\nhost = 'x'\nprot = 1\n", ["inhouse.toml:4", "server.prot", "'port'"]),
        ("[server]\nport = 'eighty'\n", ["inhouse.toml:2", "server.port", "eighty"]),
        ("[server]\nport = true\n", ["inhouse.toml:2", "server.port"]),
        ("server = 3\n", ["inhouse.toml:1", "server"]),
        ("[server\n", ["not valid TOML"]),
        ("[engine]\nkind = 'openai'\n", ["url and model"]),
        ("[engine]\nkind = 'onnx'\n", ["inhouse.toml:2", "engine.kind"]),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load_settings(write(tmp_path, text), {})
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "must"),
    [
        ("server = 3\n", "must be a table"),
        ("[server]\nport = 'eighty'\n", "must be a whole number"),
        ("[server]\nport = 70000\n", "must be 65535 or less"),
        ("[review]\nreading = 1\n", "must be true or false"),
        ("[answer]\nmax_tokens = 0\n", "must be 1 or more"),
        ("exclude = 'a'\n", "must be a list"),
        ("recipe = 3\n", "must be text in quotes"),
        ("[engine]\nkind = 'onnx'\n", "must be one of 'transformers', 'openai' or 'vllm'"),
    ],
)
def test_what_a_value_must_be_is_said_in_plain_words(tmp_path: Path, text: str, must: str) -> None:
    with pytest.raises(InvalidSettings, match=must):
        load_settings(write(tmp_path, text), {})


def test_every_setting_has_a_variable(tmp_path: Path) -> None:
    given = {
        "INHOUSE_EXCLUDE": '["*.sql", "old/"]',
        "INHOUSE_REVIEW_READING": "true",
        "INHOUSE_RETRAIN_PRICE": "2.79",
        "INHOUSE_RETRAIN_AFTER_PRS": "20",
        "INHOUSE_RERANKER_NAME": "models/cross",
        "INHOUSE_INLINE_COMPLETION_ENABLED": "true",
        "INHOUSE_ENGINE_ADAPTERS": '{ "abc" = "house" }',
    }
    settings = load_settings(tmp_path, given)
    assert settings.exclude == ["*.sql", "old/"] and settings.review.reading and settings.retrain.price == 2.79
    assert settings.retrain.after_prs == 20 and settings.reranker.name == "models/cross"
    assert settings.inline_completion.enabled and settings.engine.adapters == {"abc": "house"}
    with pytest.raises(InvalidSettings, match=r"INHOUSE_EXCLUDE: .*must be a list"):
        load_settings(tmp_path, {"INHOUSE_EXCLUDE": "*.sql"})
    with pytest.raises(InvalidSettings, match=r"INHOUSE_REVIEW_CHECK cannot set review.check, which the main branch"):
        load_settings(tmp_path, {"INHOUSE_REVIEW_CHECK": "make"})


def test_when_to_retrain_may_come_from_the_environment_and_is_checked(tmp_path: Path) -> None:
    environment = {"INHOUSE_RETRAIN_WEBHOOK": "https://chat.example.org/hook", "INHOUSE_RETRAIN_EVERY": "7d"}
    retrain = load_settings(tmp_path, environment).retrain
    assert (retrain.webhook, retrain.every) == ("https://chat.example.org/hook", "7d")
    for wrong in ({"INHOUSE_RETRAIN_EVERY": "weekly"}, {"INHOUSE_RETRAIN_WEBHOOK": "ftp://example.org"}):
        with pytest.raises(InvalidSettings, match=next(iter(wrong))):
            load_settings(tmp_path, wrong)


def test_an_encoder_s_folder_counts_from_the_repository(tmp_path: Path) -> None:
    (tmp_path / "models" / "code").mkdir(parents=True)
    write(tmp_path, "[encoder]\nname = 'models/code'\ntrust_remote_code = 'models/code'\nquery_prompt = 'find: '\n")
    choice = load_settings(tmp_path, {}).encoder.choice(tmp_path)
    assert (choice.name, choice.query_prompt) == (str(tmp_path / "models" / "code"), "find: ")
    assert choice.trust_remote_code == choice.name
    named = load_settings(tmp_path, {"INHOUSE_ENCODER_NAME": "owner/model"}).encoder.choice(tmp_path)
    assert (named.name, named.trust_remote_code) == ("owner/model", "models/code")
    with pytest.raises(InvalidSettings, match=r"encoder.device"):
        load_settings(tmp_path, {"INHOUSE_ENCODER_DEVICE": "gpu"})


def test_a_name_of_digits_stays_a_name(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {"INHOUSE_BASE_MODEL": "2024"}).base_model == "2024"


@pytest.mark.parametrize("state_dir", ["", ".", "..", "/", "sub/.."])
def test_the_state_never_covers_the_repository(tmp_path: Path, state_dir: str) -> None:
    settings = load_settings(tmp_path, {"INHOUSE_STATE_DIR": state_dir})
    with pytest.raises(InvalidSettings, match="holds the repository itself"):
        settings.state_path(tmp_path)


def test_a_wrong_variable_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="INHOUSE_SERVER_PORT"):
        load_settings(tmp_path, {"INHOUSE_SERVER_PROT": "1"})
    with pytest.raises(InvalidSettings, match=r"INHOUSE_SERVER_PORT: 'server.port'"):
        load_settings(tmp_path, {"INHOUSE_SERVER_PORT": "many"})


def test_the_template_names_every_setting_and_means_the_defaults(tmp_path: Path) -> None:
    text = settings_template({"state_dir": Detected("three files.")})
    assert load_settings(write(tmp_path, text), {}) == Settings()
    assert "# Detected: three files.\n# state_dir" in text
    lines = [line for line in text.splitlines() if (line.startswith("# ") and " = " in line) or line[:1] == "["]
    set_by_default = [line.removeprefix("# ") for line in lines if "# an example" not in line]
    assert Settings.model_validate(tomllib.loads("\n".join(set_by_default))) == Settings()
    # Examples are values that are accepted, and all that has no default has one.
    with_examples = Settings.model_validate(tomllib.loads("\n".join(line.removeprefix("# ") for line in lines)))
    for section in with_examples.model_dump().values():
        assert not isinstance(section, dict) or None not in section.values()


def test_what_was_detected_stands_in_place_of_the_default() -> None:
    text = settings_template({"forge.kind": Detected("origin is github.com.", "github")})
    assert '# Detected: origin is github.com.\n# kind = "github"\n' in text


def test_a_forge_needs_a_project_and_its_token_is_no_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r'kind = "gitlab" needs a project'):
        load_settings(tmp_path, {"INHOUSE_FORGE_KIND": "gitlab"})
    environment = {"INHOUSE_FORGE_KIND": "github", "INHOUSE_FORGE_PROJECT": "acme/shop", "INHOUSE_FORGE_TOKEN": "t"}
    forge = load_settings(tmp_path, environment).forge
    assert (forge.kind, forge.project, forge.url, forge.limit) == ("github", "acme/shop", None, 100)
    assert forge.token_env == "INHOUSE_FORGE_TOKEN"
