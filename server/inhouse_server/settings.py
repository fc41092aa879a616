"""`inhouse.toml` and `INHOUSE_*` variables, typed.

Everything has a default, so every command works with no file. An unknown key or a wrong type is refused with file, line
and the nearest valid name. A variable stands above the file: ``INHOUSE_SERVER_PORT=0`` sets ``[server] port``. What is
not text is written as in the file: ``INHOUSE_EXCLUDE='["*.sql"]'``.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inhouse_retrieval.errors import InhouseError
from inhouse_retrieval.export_paths import ExportPaths
from inhouse_server.settings_file import FILE_NAME
from inhouse_training import INTERVAL
from inhouse_training.fill_in import why_not

if TYPE_CHECKING:
    from inhouse_retrieval import EncoderChoice, Reranker

FORGE_TOKEN = "INHOUSE_FORGE_TOKEN"
"""Variable that holds the forge's token unless `[forge] token_env` names another."""
WEBHOOK_SECRET = "INHOUSE_WEBHOOK_SECRET"
"""Variable that holds the secret of the forge's webhook unless `[webhook] secret_env` names another."""
NOT_SETTINGS = frozenset(
    {"INHOUSE_LOG", "INHOUSE_CACHE", "INHOUSE_SMOLLM2_WHEEL", "INHOUSE_TOKEN", FORGE_TOKEN, WEBHOOK_SECRET}
)
"""`INHOUSE_*` variables that steer the process rather than a setting."""
FILE_ONLY = frozenset(("review", key) for key in ("check", "check_seconds", "check_memory_mb", "check_reads"))
"""Settings that no variable sets: they are read from the main branch, whatever the work tree says."""


class InvalidSettings(InhouseError):
    """`inhouse.toml` or an `INHOUSE_*` variable says something that inhouse cannot use."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EngineSettings(_Section):
    """Where answers are generated."""

    kind: Literal["transformers", "openai", "vllm"] = Field(
        "transformers",
        description="'transformers' runs in this process; 'openai' asks a compatible server, 'vllm' several",
    )
    batched: Literal["auto", "on", "off"] = Field(
        "auto",
        description="answers of several requests made together in this process; 'auto' does so on a GPU and in 8 bits",
    )
    weights: Literal["auto", "full", "8bit", "4bit"] = Field(
        "auto",
        description="bits of the base model's weights in this process: 'auto' takes 4 on a GPU for what was trained in "
        "4, answers and judging alike, and 8 for answers on a processor with AVX2",
    )
    waiting: int = Field(
        64, ge=0, description="answers that may wait in this process; beyond that who has most of them gets 429"
    )
    url: str | None = Field(None, examples=["http://127.0.0.1:8000/v1"], description="base URL of the server")
    model: str | None = Field(None, examples=["house"], description="name of the base model at that server")
    adapters: dict[str, str] = Field(default_factory=dict, description="adapter version -> model name at that server")
    api_key_env: str = Field("OPENAI_API_KEY", description="variable that holds the server's key")
    context_tokens: int = Field(8192, ge=512, description="context length of the server's model")
    servers: list[Annotated[str, Field(pattern=r"^https?://[^/\s]+(/.*)?$")]] = Field(
        default_factory=list, description="vLLM servers, such as http://10.0.0.7:8000, all with the same base model"
    )
    adapters_folder: str | None = Field(
        None,
        examples=["/mnt/inhouse/adapters"],
        description="where the vLLM servers see the folder adapters of the state directory, when elsewhere",
    )
    max_lora_rank: int = Field(16, ge=1, le=512, description="--max-lora-rank that the vLLM servers were started with")


class AnswerSettings(_Section):
    """How a question is answered."""

    max_tokens: int = Field(384, ge=1, description="longest answer, in tokens")
    prompt_tokens: int = Field(2048, ge=256, description="longest prompt, passages included, in tokens")
    passages: int = Field(6, ge=0, le=50, description="passages that retrieval offers to the prompt")


def _from_folder(said: dict[str, Any], root: Path) -> dict[str, Any]:
    """A model's settings; where its name is that of a folder from ``root`` on, with the whole path."""
    name = said["name"]
    folder = root / Path(name).expanduser()
    if not folder.is_dir():
        return said
    return {**said, **{key: str(folder) for key in ("name", "trust_remote_code") if said[key] == name}}


class EncoderSettings(_Section):
    """What makes the vectors of the index."""

    name: str = Field(
        "all-MiniLM-L6-v2",
        description="the bundled model, a folder of sentence-transformers or model2vec, or a hub name",
    )
    revision: str | None = Field(
        None, examples=["main"], description="commit, tag or branch of a model with a hub name"
    )
    precision: Literal["auto", "int8", "float16", "float32"] = Field(
        "auto", description="'auto' takes int8 where the model is a BERT and runs on the CPU, and float32 elsewhere"
    )
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="'cpu', 'cuda' or 'cuda:1'")
    query_prompt: str | None = Field(
        None, examples=["query: "], description="text before a question, in place of the model's own prompt"
    )
    document_prompt: str | None = Field(
        None, examples=["passage: "], description="text before a chunk, in place of the model's own prompt"
    )
    max_tokens: int | None = Field(
        None,
        ge=32,
        examples=[256],
        description="longest chunk in tokens; without it what the model reads, at most 512",
    )
    trust_remote_code: str | None = Field(
        None,
        examples=["owner/model"],
        description="name of the model once more, to let code that comes with it run",
    )

    def choice(self, root: Path) -> EncoderChoice:
        """The same for the retrieval; a folder counts from ``root``."""
        from inhouse_retrieval import EncoderChoice

        bundled = self.name == EncoderSettings().name
        return EncoderChoice(**(self.model_dump() if bundled else _from_folder(self.model_dump(), root)))


class InlineCompletionSettings(_Section):
    """Text at the cursor while typing, from a base model that was trained to fill in."""

    enabled: bool = Field(False, description="offer it to editors that ask for inline completion")
    prompt_tokens: int = Field(
        512, ge=32, le=8192, description="text around the cursor that the model reads, in tokens"
    )
    max_tokens: int = Field(48, ge=1, le=512, description="longest completion, in tokens")


class ExportSettings(_Section):
    """Exports of what people wrote elsewhere, learned as they were at the training snapshot."""

    chat: list[str] = Field(default_factory=list, description="Slack exports: zip files or folders")
    tickets: list[str] = Field(default_factory=list, description="Jira or Linear exports: CSV, JSON or JSON lines")
    mail: list[str] = Field(default_factory=list, description="mbox files")

    def paths(self) -> ExportPaths:
        """The same for the packages that read them."""
        return ExportPaths(tuple(self.chat), tuple(self.tickets), tuple(self.mail))


class ForgeSettings(_Section):
    """Where pull requests and what was said about them are read by `inhouse sync`."""

    kind: Literal["none", "github", "gitlab"] = Field("none", description="'none', 'github' or 'gitlab'")
    url: str | None = Field(
        None, examples=["https://github.example.org/api/v3"], description="address of the API of your own server"
    )
    project: str | None = Field(
        None, examples=["owner/name"], description="owner/name, or GitLab's path of the project"
    )
    token_env: str = Field(FORGE_TOKEN, description="variable that holds a token that may read pull requests")
    limit: int = Field(100, ge=1, le=5000, description="pull requests that are read, the last merged first")


class SynthesisSettings(_Section):
    """Which model writes synthetic rows for `inhouse dataset synthesize`."""

    base_url: str | None = Field(
        None,
        examples=["http://127.0.0.1:8000/v1"],
        description="OpenAI-compatible server that writes them; without one, what [engine] answers with",
    )
    model: str | None = Field(None, examples=["writer"], description="name of the model at that server")
    api_key_env: str = Field("OPENAI_API_KEY", description="variable that holds the server's key")
    concurrency: int = Field(4, ge=1, le=256, description="requests to the server under way at once")
    json_schema: bool = Field(True, description="send the form of the reply as a JSON schema")
    max_tokens_total: int = Field(
        2_000_000, ge=1, description="tokens of prompts and replies that one run may take, at most"
    )


class RerankerSettings(_Section):
    """A cross-encoder that orders the best passages anew; `inhouse eval retrieval` says whether that pays."""

    name: str | None = Field(
        None,
        examples=["models/cross-encoder"],
        description="folder of a cross-encoder, or a hub name; without one there is none",
    )
    revision: str | None = Field(
        None, examples=["main"], description="commit, tag or branch of a model with a hub name"
    )
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="'cpu', 'cuda' or 'cuda:1'")
    passages: int = Field(20, ge=2, le=200, description="how many of the best passages it looks at")
    deadline_ms: int = Field(300, ge=1, description="time for that in one search; what is not scored keeps its place")
    max_tokens: int = Field(320, ge=32, description="of question and passage together; what is longer is cut")
    trust_remote_code: str | None = Field(
        None,
        examples=["owner/model"],
        description="name of the model once more, to let code that comes with it run",
    )

    def reranker(self, root: Path) -> Reranker | None:
        """The configured one; a folder counts from ``root``.

        Raises:
            InhouseError: it is not on this machine.
        """
        if self.name is None:
            return None
        from inhouse_retrieval import Reranker, RerankerChoice

        return Reranker(RerankerChoice(**_from_folder(self.model_dump(), root)))


class ReviewSettings(_Section):
    """How a change is reviewed."""

    findings: int = Field(5, ge=1, le=100, description="findings shown at most, best first")
    reading: bool = Field(False, description="let the model read each hunk, too; for a model of 7B or more")
    tokens: int = Field(512, ge=64, le=4096, description="longest reply of the model about one hunk, in tokens")
    samples: int = Field(1, ge=1, le=9, description="how often the model reads each hunk; the majority counts")
    second_look: bool = Field(False, description="let the model score its own remarks, and drop those below 5 of 10")
    check: str | None = Field(
        None,
        min_length=1,
        examples=["npx tsc --noEmit"],
        description="command that no suggestion may make worse, run in a sandbox; the main branch's counts",
    )
    check_seconds: float = Field(60.0, gt=0, le=3600, description="time that the check may take, each time it is run")
    check_memory_mb: int = Field(2048, ge=16, description="memory of each of its processes, and of all of its files")
    check_reads: list[str] = Field(
        default_factory=list, description="folders that it may read beside the system's, such as node_modules"
    )


class VectorSettings(_Section):
    """Where Chroma keeps the vectors of the index."""

    server: str | None = Field(
        None,
        examples=["own"],
        description="socket of a vector server, or 'own' for one that the owner starts; a folder without",
    )


class SlackSettings(_Section):
    """Where and for whom `inhouse slack` answers; nobody until something is named. Tokens come from the environment."""

    channels: list[str] = Field(default_factory=list, description="ids of channels, such as C0123456789")
    users: list[str] = Field(
        default_factory=list, description="ids of members; with some, only they are answered, and directly as well"
    )
    url: str = Field("https://slack.com/api/", pattern=r"^https?://[^/\s]+/", description="address of the Web API")


class WebhookSettings(_Section):
    """Where `inhouse webhook serve` receives what the forge tells about pull requests."""

    host: str = Field("127.0.0.1", description="address to listen on; the forge reaches it through your proxy")
    port: int = Field(8471, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    secret_env: str = Field(WEBHOOK_SECRET, description="variable that holds the secret set at the forge's webhook")
    room: int = Field(200, ge=1, le=10_000, description="reviews that may wait; beyond that deliveries are refused")


class RetrainSettings(_Section):
    """When `inhouse retrain` has something to do, and who hears of it."""

    every: str | None = Field(
        None, pattern=f"^({INTERVAL})$", examples=["7d"], description="age of the last run, such as 12h or 7d"
    )
    after_prs: int | None = Field(
        None, ge=1, examples=[20], description="changes that must have landed since the last run"
    )
    webhook: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+",
        examples=["https://chat.example.org/hook"],
        description="URL that the result of each finished run is sent to",
    )
    price: float | None = Field(
        None, ge=0, examples=[2.79], description="what an hour of the machine costs, for --dry-run"
    )
    step_aside: bool = Field(
        True, description="where memory does not do for both, let the owner answer nobody until the candidate is judged"
    )


class ServerSettings(_Section):
    """Where the owner process listens."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8470, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    allowed_hosts: list[str] = Field(default_factory=list, description="further Host names that requests may carry")
    tls_cert: str | None = Field(
        None, examples=["/etc/inhouse/cert.pem"], description="certificate chain in PEM, to listen with TLS"
    )
    tls_key: str | None = Field(
        None, examples=["/etc/inhouse/key.pem"], description="its key in PEM, without a password"
    )
    behind_proxy: bool = Field(False, description="a reverse proxy ends TLS in front of this server")
    drain_seconds: int = Field(30, ge=0, description="how long answers may take to end when the server is to stop")
    tokens: str | None = Field(
        None,
        examples=["/etc/inhouse/tokens.json"],
        description="file of the team's tokens instead of tokens.json in the state directory",
    )
    repositories: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")], str] = Field(
        default_factory=dict,
        description="name -> folder of each repository that the owner serves, its own folder among them",
    )
    requests_per_minute: int = Field(120, ge=0, description="requests of one team token a minute; 0 for any number")
    completions_per_minute: int = Field(
        240, ge=0, description="inline completions of one team token a minute; 0 for any number"
    )
    requests_at_once: int = Field(8, ge=0, description="requests and editors of one team token at once; 0 for any")


class Settings(_Section):
    """All of `inhouse.toml`."""

    state_dir: str = Field(".inhouse", description="where index, adapters and logs live")
    base_model: str = Field("SmolLM2-135M-Instruct", description="model that is fine-tuned and served")
    recipe: str = Field("cpu-trial", description="training recipe: a shipped name or a path")
    exclude: list[str] = Field(
        default_factory=list, description="files never indexed nor trained on, as patterns of a .gitignore"
    )
    wiki: list[str] = Field(
        default_factory=lambda: ["docs", "doc", "wiki"],
        description="folders of wiki pages: in the repository, or outside, such as a clone of its wiki",
    )
    conversations: list[str] = Field(
        default_factory=list,
        description="hand-made conversations to train on: JSON lines of messages, such as talks/*.jsonl",
    )
    answer: AnswerSettings = Field(default_factory=AnswerSettings)
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    exports: ExportSettings = Field(default_factory=ExportSettings)
    inline_completion: InlineCompletionSettings = Field(default_factory=InlineCompletionSettings)
    forge: ForgeSettings = Field(default_factory=ForgeSettings)
    reranker: RerankerSettings = Field(default_factory=RerankerSettings)
    review: ReviewSettings = Field(default_factory=ReviewSettings)
    synthesis: SynthesisSettings = Field(default_factory=SynthesisSettings)
    retrain: RetrainSettings = Field(default_factory=RetrainSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    vectors: VectorSettings = Field(default_factory=VectorSettings)
    slack: SlackSettings = Field(default_factory=SlackSettings)
    webhook: WebhookSettings = Field(default_factory=WebhookSettings)

    def no_inline_completion(self) -> str:
        """Why no inline completion is offered, as a sentence; empty when it is. Reads the base model's tokenizer."""
        if not self.inline_completion.enabled:
            return "It is off; [inline_completion] enabled = true turns it on."
        if self.engine.kind != "transformers":
            return f'[engine] kind = "{self.engine.kind}" has no way to fill in; "transformers" has.'
        return why_not(self.base_model)

    def state_path(self, root: Path) -> Path:
        """The state directory of the repository at ``root``, absolute.

        Raises:
            InvalidSettings: it would be the repository itself, or a folder that holds it.
        """
        path = (root / Path(self.state_dir).expanduser()).resolve()
        if root.resolve().is_relative_to(path):
            raise InvalidSettings(
                f"state_dir is {self.state_dir!r}, which holds the repository itself.",
                "Name a folder of its own, such as .inhouse.",
            )
        return path


def load_settings(root: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings of the repository at ``root``: defaults, then `inhouse.toml`, then `INHOUSE_*` variables.

    Raises:
        InvalidSettings: the file is not TOML, or a key or value is not one that inhouse knows.
    """
    path = root / FILE_NAME
    text = ""
    if path.exists():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidSettings(f"{path} cannot be read: {error}.", "Mend or remove the file.") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"{path} is not valid TOML: {error}.", "Mend that line.") from error
    origins = _apply_environment(values, os.environ if environ is None else environ)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise _explain(error, path, text, origins) from error
    if settings.engine.kind == "openai" and not (settings.engine.url and settings.engine.model):
        raise InvalidSettings('[engine] kind = "openai" needs url and model.', f"Add both to [engine] in {path}.")
    if settings.engine.kind == "vllm" and not (settings.engine.servers and settings.engine.model):
        raise InvalidSettings('[engine] kind = "vllm" needs servers and model.', f"Add both to [engine] in {path}.")
    if settings.synthesis.base_url and not settings.synthesis.model:
        raise InvalidSettings("[synthesis] base_url needs a model.", f"Add model to [synthesis] in {path}.")
    if settings.forge.kind != "none" and not settings.forge.project:
        raise InvalidSettings(
            f'[forge] kind = "{settings.forge.kind}" needs a project.', f"Add project to [forge] in {path}."
        )
    return settings


def _apply_environment(values: dict[str, Any], environ: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Lay `INHOUSE_*` variables over ``values``; returns which variable set which key."""
    names = _environment_names()
    origins: dict[tuple[str, ...], str] = {}
    for variable, raw in environ.items():
        if not variable.startswith("INHOUSE_") or variable in NOT_SETTINGS:
            continue
        if variable not in names:
            near = difflib.get_close_matches(variable, [*names, *NOT_SETTINGS], n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(names))}."
            raise InvalidSettings(f"The variable {variable} is not a setting.", hint)
        location = names[variable]
        if location in FILE_ONLY:
            raise InvalidSettings(
                f"{variable} cannot set {'.'.join(location)}, which the main branch's {FILE_NAME} decides.",
                f"Set it under [{location[0]}] in {FILE_NAME}.",
            )
        target = values
        for part in location[:-1]:
            inner = target.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InvalidSettings(f"[{part}] must be a table.", f"Write it as [{part}] in {FILE_NAME}.")
            target = inner
        target[location[-1]] = raw if _takes_text(_annotation(location)) else _toml_value(raw)
        origins[location] = variable
    return origins


def _environment_names() -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {}
    for key, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            names |= {f"INHOUSE_{key}_{inner}".upper(): (key, inner) for inner in section.model_fields}
        else:
            names[f"INHOUSE_{key}".upper()] = (key,)
    return names


def _annotation(location: tuple[str, ...]) -> Any:
    model: Any = Settings
    for part in location[:-1]:
        model = model.model_fields[part].annotation
    return model.model_fields[location[-1]].annotation


def _takes_text(annotation: Any) -> bool:
    """Whether a setting is text, so that a variable's value is meant as it stands."""
    if get_origin(annotation) is Literal:
        return True
    return annotation is str or (str in get_args(annotation) and get_origin(annotation) in (Union, UnionType))


def _toml_value(raw: str) -> Any:
    """``raw`` as it would be read from the file; itself when it is no TOML, which its type then refuses."""
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return raw


def _explain(error: ValidationError, path: Path, text: str, origins: Mapping[tuple[str, ...], str]) -> InvalidSettings:
    """The first complaint of pydantic in plain words, with the place where it was written."""
    detail = error.errors()[0]
    location = tuple(str(part) for part in detail["loc"])
    name = ".".join(location)
    place = origins.get(location) or f"{path}:{_line_of(location, text)}"
    if detail["type"] == "extra_forbidden":
        valid = _keys_at(location[:-1])
        near = difflib.get_close_matches(location[-1], valid, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Valid here: {', '.join(valid)}."
        return InvalidSettings(f"{place}: unknown setting {name!r}.", hint)
    must = _MUST.get(detail["type"])
    problem = f"must be {must.format(**detail.get('ctx', {}))}" if must else f"is not usable: {detail['msg']}"
    return InvalidSettings(
        f"{place}: {name!r} has the value {detail['input']!r}, which {problem}.", "Correct the value."
    )


_MUST = {
    "model_type": "a table",
    "dict_type": "a table",
    "list_type": 'a list, such as ["one", "two"]',
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "literal_error": "one of {expected}",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
}
"""What a value must be, by pydantic's kind of complaint; it would speak of instances and dictionaries."""


def _keys_at(parents: tuple[str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in parents:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _line_of(location: tuple[str, ...], text: str) -> int:
    """Line where ``location`` is written. ``tomllib`` keeps no positions, so the text is searched again."""
    section: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            section = [part.strip().strip("\"'") for part in header[1].split(".")]
            if tuple(section) == location[: len(section)] and len(section) == len(location):
                return number
        elif key := re.match(r"\s*([^=#]+?)\s*=", line):
            written = (*section, *(part.strip().strip("\"'") for part in key[1].split(".")))
            if written == location[: len(written)]:
                return number
    return 1
