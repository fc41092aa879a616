"""The typed recipe: every choice of one way of training, read from one TOML file.

A recipe is a flat, readable file in ``training/recipes``; there is no inheritance between them. Unknown
keys and wrong types are refused with the file, the line and the nearest valid name.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inhouse_retrieval import InhouseError

from .kinds import KINDS, Kind

DEFAULT_RECIPE = "cpu-trial"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


_COUNTED_AS: dict[Kind, Kind] = {"page": "file", "written": "conversation", "thread": "change"}
"""Kinds that need no share of their own -> the kind whose share they have without one."""


class DataSettings(_Section):
    """What is read and how it becomes rows.

    Attributes:
        max_tokens: tokens of a row at most, special tokens and repeated headers included.
        changes: merged changes read from history, newest first; the held-out ones are among them.
        max_train_tokens: row tokens of the whole run, repeated passes included; 0 means no bound. Rows
            beyond it are left out by a deterministic draw, and counted.
        file_share, page_share, conversation_share, written_share, change_share, thread_share, edit_share, replay_share:
            how the tokens that are learned (those with a label) are split within that budget between raw files, raw
            wiki pages, the article's conversations about either, conversations of one's own, raw changes, threads of
            exported chat, tickets and mail, past edits asked for as the product asks, and the base model's own general
            text; what one kind does not use goes to the others in proportion, and a share of 0 switches a kind off.
            Without a ``page_share`` pages are counted among the files, without a ``written_share`` one's own
            conversations among the article's, without a ``thread_share`` threads among the changes.
        qa_share, explanation_share, relation_share, raft_share, absent_share, lookup_share: the same for synthetic
            rows: what ``inhouse dataset synthesize`` had written about pages, files and pairs of files, questions with
            retrieved passages; and, for which no model is needed, names that there are not and questions that a
            program reads off the code. Each takes no more than its share of all learned tokens either.
        completion_share, review_share: the same for bodies of functions and classes, asked for as the evaluation asks,
            with what other files define of the names in them; and for hunks with what a reviewer said of them.
        replay_samples: texts drawn from the base model for each of 128 fixed general prompts, once, when
            ``replay_share`` is not 0.
        max_overlap: share of the held-out lines of 20 characters or more that may stand in the training text without
            having stood in the repository at the snapshot; more of them is a leak, and no dataset is built.
        validation_conversations: share of the conversations, those that would be trained on last, that is kept for
            validation, as the article did with a tenth. It comes on top of the later changes that are held out, and
            judges nothing: what the conversations tell is learned from files and pages all the same.
        canaries: made-up secrets planted into copies of so many rows, which the gate then tries to draw out.
    """

    max_tokens: int = Field(8192, ge=64, le=131072)
    changes: int = Field(130, ge=1)
    max_train_tokens: int = Field(0, ge=0)
    file_share: float = Field(0.4, ge=0, le=1)
    page_share: float | None = Field(None, ge=0, le=1)
    conversation_share: float = Field(0.3, ge=0, le=1)
    written_share: float | None = Field(None, ge=0, le=1)
    change_share: float = Field(0.3, ge=0, le=1)
    thread_share: float | None = Field(None, ge=0, le=1)
    edit_share: float = Field(0.0, ge=0, le=1)
    completion_share: float = Field(0.0, ge=0, le=1)
    review_share: float = Field(0.0, ge=0, le=1)
    replay_share: float = Field(0.0, ge=0, le=1)
    qa_share: float = Field(0.0, ge=0, le=1)
    explanation_share: float = Field(0.0, ge=0, le=1)
    relation_share: float = Field(0.0, ge=0, le=1)
    raft_share: float = Field(0.0, ge=0, le=1)
    absent_share: float = Field(0.0, ge=0, le=1)
    lookup_share: float = Field(0.0, ge=0, le=1)
    replay_samples: int = Field(4, ge=1, le=100)
    max_overlap: float = Field(0.1, ge=0, le=1)
    validation_conversations: float = Field(0.0, ge=0, le=0.5)
    canaries: int = Field(0, ge=0, le=32)

    def counted_as(self, kind: Kind) -> Kind:
        """The kind whose share a row counts against: its own, or for some without one that of another."""
        return kind if getattr(self, f"{kind}_share") is not None else _COUNTED_AS[kind]

    @property
    def shares(self) -> dict[Kind, float]:
        """Kind of row -> the share of the learned tokens that it counts against."""
        return {kind: float(getattr(self, f"{self.counted_as(kind)}_share")) for kind in KINDS}

    @model_validator(mode="after")
    def _shares_are_parts_of_one(self) -> DataSettings:
        shares = {f"{kind}_share": share for kind, share in self.shares.items() if self.counted_as(kind) == kind}
        total = sum(shares.values())
        if not 0 < total <= 1 + 1e-6:
            raise ValueError(f"{', '.join(shares)} add up to {total:g}, not to 1 at most")
        return self


class LoraSettings(_Section):
    """The adapter. Its scale is ``alpha / rank``; rank-stabilised scaling stays off, so that versions can
    be swapped.

    Attributes:
        dtype: what the adapter, its gradient and the moments of AdamW are kept in on a GPU. ``"bfloat16"`` takes half
            of the memory and loses what is smaller than its resolution: most updates at a learning rate of 2e-5, and
            the second moment of AdamW never falls again. Only with TRL.
        targets: ``"all-linear"``, or names of layers; :func:`~inhouse_training.memory.check_targets` looks for them.
    """

    rank: int = Field(16, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"


class OptimizerSettings(_Section):
    """AdamW and its schedule.

    Attributes:
        max_passes: times that the rows are seen at most; fewer when ``max_train_tokens`` is reached first.
        warmup: share of the steps in which the learning rate rises.
        batch_rows: rows in one forward pass.
        accumulate: forward passes in one optimiser step.
    """

    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    max_passes: int = Field(1, ge=1)
    batch_rows: int = Field(1, ge=1)
    accumulate: int = Field(1, ge=1)


class TrainerSettings(_Section):
    """How the run is carried out.

    Attributes:
        kind: ``"auto"`` takes Unsloth where CUDA and Unsloth are there, and TRL otherwise.
        packing: several short rows in one, each isolated from the others; only on a GPU.
        checkpointing: which layers keep only their input for the backward pass, and are computed again in it:
            ``"none"``, every second one (``"selective"``) or all (``"full"``). ``"auto"`` takes the first of these
            whose predicted memory fits the machine. Unsloth knows none and all.
        compile: each layer is compiled by itself, on a GPU with TRL. ``"auto"`` compiles packed rows where the run is
            predicted to take ten minutes at least, since compiling takes up to half of one. Losses differ a little
            from those of layers that are not compiled, and are nearer to float32's.
        attention: ``"documents"`` computes only what lies within a document of a packed row, where ``"sdpa"`` masks the
            rest. ``"auto"`` takes the first on a GPU that has the kernel for it (Ampere and newer). Unsloth brings its
            own.
        checkpoint_seconds: a checkpoint is written after the first step that ends this long after the last
        one.
        gpus: how many GPUs of this machine train together, by TRL; ``"all"`` takes as many as share the rows of a step
            evenly. A step has the same rows whatever their number.
        sharding: with several GPUs, ``"none"`` has the whole model on each, ``"full"`` splits it between them.
            ``"auto"`` splits where the whole one does not fit by prediction.
    """

    kind: Literal["auto", "trl", "unsloth"] = "auto"
    packing: bool = False
    load_in_4bit: bool = False
    checkpointing: Literal["auto", "none", "selective", "full"] = "auto"
    compile: Literal["auto", True, False] = False
    attention: Literal["auto", "sdpa", "documents"] = "auto"
    checkpoint_seconds: int = Field(60, ge=0)
    gpus: Literal["all"] | Annotated[int, Field(ge=1)] = 1
    sharding: Literal["auto", "none", "full"] = "auto"


class EvaluationSettings(_Section):
    """How much the evaluation reads and writes, in tokens.

    Attributes:
        prompt_tokens: prompt with retrieved passages at most.
        scored_tokens: added lines scored per change at most.
        probe_questions: short questions that every adapter answers for the gate's probes.
        probe_tokens: tokens of each of those answers at most.
    """

    prompt_tokens: int = Field(2048, ge=128)
    scored_tokens: int = Field(512, ge=8)
    probe_questions: int = Field(48, ge=2)
    probe_tokens: int = Field(128, ge=8)


class SweepSettings(_Section):
    """What ``inhouse sweep`` tries beside the recipe's own values, which are always among it.

    Attributes:
        ranks: of the adapter; a quarter, half and twice the recipe's own when none are named.
        alphas: as multiples of the rank.
        learning_rates: lowest and highest; a fifth and five times the recipe's own when none are named.
        batches: rows in an optimiser step; half and twice the recipe's own when none are named.
        mixes: name -> shares of ``[data]`` that differ from the recipe's; more past edits and more plain text when none
            are named.
    """

    ranks: tuple[Annotated[int, Field(ge=1)], ...] = ()
    alphas: tuple[Annotated[float, Field(gt=0)], ...] = (1.0, 1.5, 2.0)
    learning_rates: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    batches: tuple[Annotated[int, Field(ge=1)], ...] = ()
    mixes: dict[str, dict[str, Annotated[float, Field(ge=0, le=1)]]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_and_order(self) -> SweepSettings:
        known = [name for name in DataSettings.model_fields if name.endswith("_share")]
        for mix, shares in self.mixes.items():
            if not re.fullmatch(r"[A-Za-z0-9][\w-]*", mix):
                raise ValueError(f"the mix {mix!r} is not named by letters, figures, - and _")
            for share in shares:
                if share not in known:
                    raise ValueError(f"the mix {mix!r} names {share!r}, which is none of {', '.join(known)}")
        if self.learning_rates is not None and self.learning_rates[0] > self.learning_rates[1]:
            raise ValueError("learning_rates begins with the lowest")
        return self


class Recipe(_Section):
    """One way of training.

    Attributes:
        name: the file's name without its ending.
        seed: what numpy takes as one.
        selected_until: the newest change by which a sweep chose this recipe: it and the changes before it never judge
            what the recipe makes. Empty for a recipe that nothing was chosen by.
        sweep: not part of what identifies a run.
    """

    name: str
    base_model: str
    seed: int = Field(3407, ge=0, lt=2**32)
    selected_until: str = Field("", pattern="^([0-9a-f]{40}|[0-9a-f]{64})?$")
    data: DataSettings = Field(default_factory=DataSettings)
    lora: LoraSettings = Field(default_factory=LoraSettings)
    optimizer: OptimizerSettings
    trainer: TrainerSettings = Field(default_factory=TrainerSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    sweep: SweepSettings = Field(default_factory=SweepSettings, exclude=True)


def recipe_names() -> list[str]:
    """Names of the recipes that come with inhouse."""
    return sorted(path.name.removesuffix(".toml") for path in _shipped().iterdir() if path.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path = DEFAULT_RECIPE) -> Recipe:
    """Read a recipe by its shipped name or from a file.

    Raises:
        InhouseError: there is no such recipe, or something in the file is not valid.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        path = Path(name_or_path)
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InhouseError(f"The recipe {path} cannot be read ({error}).", "Name a TOML file.") from error
        return parse_recipe(content, path.name.removesuffix(".toml"), str(path))
    check_recipe_name(text)
    return parse_recipe((_shipped() / f"{text}.toml").read_text(encoding="utf-8"), text, f"{text}.toml")


def fitting_recipe(gpu_gib: float | None) -> str:
    """The shipped recipe for a machine whose GPU has ``gpu_gib`` GiB, ``None`` for no GPU. Cards that are sold as of 24
    and 16 GB have a little less."""
    if gpu_gib is None:
        return "cpu-trial"
    return "default-7b" if gpu_gib >= 23 else "small-gpu" if gpu_gib >= 15 else "gpu-trial"


def check_recipe_name(text: str) -> None:
    """See whether a recipe is called ``text``, or a file ending in `.toml` is there; nothing is read.

    Raises:
        InhouseError: it is not so.
    """
    names = recipe_names()
    if text.endswith(".toml"):
        if not Path(text).is_file():
            raise InhouseError(f"There is no file {text}.", f"Name one, or one of {', '.join(names)}.")
    elif text not in names:
        near = difflib.get_close_matches(text, names, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(names)}, or name a .toml file."
        raise InhouseError(f"There is no recipe called {text!r}.", hint)


def parse_recipe(content: str, name: str, file: str) -> Recipe:
    """Read a recipe from TOML text; ``file`` is what errors call it."""
    remedy = "The recipes that come with inhouse show every key."
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise InhouseError(f"{file} is not valid TOML: {error}.", "Correct that line.") from error
    if "name" in values:
        raise InhouseError(f"{file}: a recipe takes its name from its file.", "Remove the key 'name'.")
    try:
        return Recipe.model_validate_json(_as_json({**values, "name": name}))
    except ValidationError as error:
        # A misspelt section is also a missing one; the misspelling is what the reader must hear of.
        first = min(error.errors(include_url=False), key=lambda each: each["type"] == "missing")
        keys = [part for part in first["loc"] if isinstance(part, str) and not part.startswith(("literal[", "tuple["))]
        where = f"{file}, line {_line_of(content, keys)}"
        dotted = ".".join(keys)
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(keys[-1], _valid_names(keys[:-1]), n=1)
            hint = f"Did you mean {near[0]!r}?" if near else remedy
            raise InhouseError(f"{where}: there is no key {dotted!r}.", hint) from error
        if first["type"] == "missing":
            raise InhouseError(f"{file}: the key {dotted!r} is missing.", remedy) from error
        raise InhouseError(f"{where}: {dotted}: {first['msg']}.", remedy) from error


def _shipped() -> resources.abc.Traversable:
    return resources.files("inhouse_training.recipes")


def _as_json(values: object) -> str:
    # Strict validation from JSON accepts arrays for tuples and whole numbers for floats, as a TOML reader
    # expects.
    import json

    return json.dumps(values, default=str)


def _valid_names(keys: list[str]) -> list[str]:
    model: type[BaseModel] = Recipe
    for key in keys:
        annotation = model.model_fields[key].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return [name for name in model.model_fields if name != "name"]


def _line_of(content: str, keys: list[str]) -> int:
    """The 1-based line where a dotted key stands; its section's line, or 1, when the key itself is not
    written."""
    section: list[str] = []
    best = 1
    for number, line in enumerate(content.splitlines(), start=1):
        header = re.match(r"\s*\[\s*([^\]]+?)\s*\]", line)
        if header:
            section = [part.strip(" \"'") for part in header[1].split(".")]
            if section == keys:
                return number
            if section == keys[:-1]:
                best = number
            continue
        pair = re.match(r"\s*([\w\"'.-]+)\s*=", line)
        if pair and [*section, *(part.strip("\"'") for part in pair[1].split("."))] == keys:
            return number
    return best
