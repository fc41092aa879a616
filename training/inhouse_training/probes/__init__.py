"""What the gate asks beside the loss: invented names, answers that go wrong, secrets that can be drawn out.

The loss on later changes does not see an adapter that names functions which are not there, never ends, or knows a
password. So each adapter answers the same short questions, and the candidate is tried on every secret that it must not
know. The bounds are the gate's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from inhouse_retrieval import Progress, Repository, no_progress

from ..canaries import Canary
from ..cut import Cut, HeldOutChange
from ..engine import BASE, Message, RowScore, ScoredRow
from ..evaluation import CANDIDATE, Interval, paired_rise
from ..recipe import Recipe
from ..snapshot_search import Retriever
from .answers import Checked, check_answer, choose_questions, prompts_of, read_house
from .secrets import Exposure, KnownSecret, exposure_json, exposures, snapshot_secrets

FAULTS = {"loops": "go round in circles", "empty": "are empty", "endless": "do not end"}
"""What can be wrong with an answer, and how a sentence calls it."""


INVENTED = "invented"
"""Names that an answer speaks of and that stand nowhere in the repository."""


class ProbedEngine(Protocol):
    """The part of an engine that probes need: answers to several prompts at once, and scores."""

    def count_tokens(self, messages: Sequence[Message]) -> int: ...
    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]: ...
    def answer_all(
        self, prompts: Sequence[Sequence[Message]], max_tokens: int, adapter: str = BASE
    ) -> list[tuple[str, bool]]: ...


@dataclass(frozen=True, slots=True)
class Probes:
    """What the probes found.

    Attributes:
        answers: adapter label (``"base"``, ``"current"``, ``"candidate"``) -> one answer per question, checked.
        secrets: how many secrets and canaries were looked for.
        exposures: of those that fine-tuning made most likely, the most exposed first.
    """

    answers: dict[str, tuple[Checked, ...]]
    secrets: int
    exposures: tuple[Exposure, ...]

    def share(self, what: str, label: str) -> float:
        """Share of the identifiers that are :data:`INVENTED`, or of the answers that have one of :data:`FAULTS`."""
        counts = _counts(self.answers[label], what)
        return sum(hits for hits, _ in counts) / max(sum(of for _, of in counts), 1)

    def rise(self, what: str, over: str) -> Interval:
        """How much higher the candidate's :meth:`share` is than that of ``over``, with its 95 % interval: a bootstrap
        over questions, both adapters on the same ones."""
        return paired_rise(_counts(self.answers[over], what), _counts(self.answers[CANDIDATE], what))

    def metrics(self) -> dict[str, Any]:
        """Figures for reports and manifests."""
        answers = {
            label: {
                "identifiers": sum(each.identifiers for each in checked),
                **{what: round(self.share(what, label), 4) for what in (INVENTED, *FAULTS)},
            }
            for label, checked in self.answers.items()
        }
        questions = len(next(iter(self.answers.values()), ()))
        return {
            "questions": questions,
            "answers": answers,
            "secrets": self.secrets,
            "exposures": exposure_json(self.exposures),
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return asdict(self)

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Probes:
        """What :meth:`to_json` gave."""
        answers = {
            label: tuple(Checked(**{**each, "unknown": tuple(each["unknown"])}) for each in checked)
            for label, checked in stored["answers"].items()
        }
        return Probes(answers, stored["secrets"], tuple(Exposure(**each) for each in stored["exposures"]))


def _counts(checked: Sequence[Checked], what: str) -> list[tuple[int, int]]:
    """By question: how many have it, and out of how many."""
    if what == INVENTED:
        return [(len(each.unknown), each.identifiers) for each in checked]
    return [(int(getattr(each, what)), 1) for each in checked]


def run_probes(
    engine: ProbedEngine,
    tokenizer: Any,
    repository: Repository,
    cut: Cut,
    held_out: Sequence[HeldOutChange],
    canaries: Sequence[Canary],
    retriever: Retriever | None,
    adapters: Mapping[str, str],
    recipe: Recipe,
    progress: Progress = no_progress,
) -> Probes:
    """Ask every adapter the same questions, and try to draw secrets out of the candidate.

    Args:
        cut: where the past ends; its snapshot and changes were trained on.
        held_out: the changes that are asked for.
        canaries: what the dataset planted.
        adapters: label -> adapter name of the engine; ``"base"`` and ``"candidate"`` are among them.

    Raises:
        InhouseError: an adapter cannot be loaded.
    """
    total = len(adapters) + 1
    progress("probing", 0, total)
    house = read_house(repository, cut.snapshot, cut.held_out)
    questions = choose_questions(engine, held_out, house, recipe.evaluation)
    prompts = prompts_of(engine, questions, retriever, recipe.evaluation)
    answers = {}
    for done, (label, adapter) in enumerate(adapters.items()):
        progress("probing", done, total)
        said = engine.answer_all(prompts, recipe.evaluation.probe_tokens, adapter)
        answers[label] = tuple(
            check_answer(prompt, text, ended, house) for prompt, (text, ended) in zip(prompts, said, strict=True)
        )
    progress("probing", len(adapters), total)
    secrets = [
        *snapshot_secrets(repository, cut.snapshot, cut.training),
        *(KnownSecret("canary", canary.name, canary.prefix, canary.secret) for canary in canaries),
    ]
    exposed = exposures(engine, tokenizer, secrets, adapters[CANDIDATE], recipe.seed)
    progress("probing", total, total)
    return Probes(answers, len(secrets), exposed)
