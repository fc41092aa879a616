"""What the commands `dataset`, `train`, `eval` and `retrain` begin with: repository, recipe, base model, run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inhouse_retrieval.errors import InhouseError
from inhouse_retrieval.progress import Progress
from inhouse_server.cli.backend import locate
from inhouse_server.cli.room import RoomForTraining
from inhouse_server.cli.terminal import start_logging
from inhouse_server.cli.usage import known_recipe
from inhouse_server.settings import Settings

if TYPE_CHECKING:
    from inhouse_retrieval import Repository
    from inhouse_training import AskedWeights, BaseModel, Dataset, MakeRoom, Recipe, Replies, Run, Task
    from inhouse_training.kinds import Kind

AllDataOption = Annotated[
    bool,
    typer.Option("--all-data", help="Hold nothing out: a version that is not evaluated, and promoted only by hand."),
]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help="A shipped recipe or a path.", callback=known_recipe)
]


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """The inputs of one training command."""

    repository: Repository
    settings: Settings
    state_dir: Path
    recipe: Recipe
    base: BaseModel

    @property
    def retrieval(self) -> bool:
        """Whether this repository is answered with retrieved passages."""
        return self.settings.answer.passages > 0

    @property
    def weights(self) -> AskedWeights:
        """Those that answers are made with, and candidates judged with: another server has full ones."""
        return self.settings.engine.weights if self.settings.engine.kind == "transformers" else "full"

    def run(self) -> Run:
        """The run that belongs to the repository as it is now; nothing is written."""
        from inhouse_training import open_run

        return open_run(self.repository, self.state_dir, self.recipe, self.base, self.retrieval)

    def room(self, progress: Progress) -> RoomForTraining:
        """Room for training and judging here."""
        may_ask = self.settings.retrain.step_aside
        return RoomForTraining(self.state_dir, self.recipe, self.base, may_ask, progress, weights=self.weights)

    def build_dataset(self, progress: Progress, make_room: MakeRoom | None = None) -> tuple[Run, Dataset]:
        """Build the run's dataset, or find it built. The caller holds the runs.

        Args:
            make_room: called before a model is loaded; without it, what is free has to do.
        """
        from inhouse_training import as_it_is, build_dataset, load_tokenizer, replay_source, start_run, stored_replies

        run = self.run()
        start_run(run)
        tokenizer = load_tokenizer(self.base)
        replay = replay_source(self.base, self.recipe, progress, make_room or as_it_is)
        generated = partial(stored_replies, self.state_dir)
        dataset = build_dataset(
            self.repository, tokenizer, self.recipe, run.cut, run.dataset, progress, replay, generated
        )
        return run, dataset

    def synthesis_tasks(self, kinds: Collection[Kind], progress: Progress) -> list[Task]:
        """What a model would be asked for ``kinds`` of synthetic rows; all of it from the training snapshot."""
        from inhouse_training import plan_tasks, read_sections, repository_name

        progress("reading the training snapshot", 0, None)
        sections = read_sections(self.repository, self.run().cut)
        return plan_tasks(sections, kinds, repository_name(self.repository))

    def replies_of(self, generator: str) -> Replies:
        """What ``generator`` answered before."""
        from inhouse_training import stored_replies

        return stored_replies(self.state_dir, generator)


def training_job(repo: Path, recipe: str | None, progress: Progress, name: str, look_only: bool = False) -> TrainingJob:
    """Resolve everything; logs go to ``NAME.log``.

    Args:
        look_only: write nothing, and fetch no base model: one that is not on this machine has no hash and no folder.

    Raises:
        InhouseError: no repository, an unknown recipe, one for another base model than is served, or a base model that
            cannot be had.
    """
    from inhouse_retrieval import Repository
    from inhouse_server.state_dir import prepare_state_dir
    from inhouse_training import BaseModel, find_base_model, load_recipe, resolve_base_model

    root, settings, state_dir = locate(repo)
    if not look_only:
        prepare_state_dir(state_dir)
        start_logging(state_dir, name)
    chosen = load_recipe(recipe or settings.recipe)
    if settings.base_model != chosen.base_model and not Path(settings.base_model).expanduser().is_dir():
        raise InhouseError(
            f"The recipe {chosen.name} is for {chosen.base_model}, and this repository is served by "
            f"{settings.base_model}.",
            f'Set base_model = "{chosen.base_model}" in inhouse.toml (or to a folder that holds it), or choose another '
            "recipe.",
        )
    if look_only:
        base = find_base_model(settings.base_model) or BaseModel(settings.base_model, Path(), "", "")
    else:
        base = resolve_base_model(settings.base_model, progress)
    repository = Repository.open(root).excluding(settings.exclude).with_wiki(settings.wiki)
    repository = repository.with_conversations(settings.conversations).with_exports(settings.exports.paths())
    return TrainingJob(repository, settings, state_dir, chosen, base)
