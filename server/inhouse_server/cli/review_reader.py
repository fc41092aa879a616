"""Where the reading reviewer's model and index are: in the owner process when one runs, otherwise here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from inhouse_retrieval import Passage, Progress
from inhouse_server.cli.backend import OwnerBackend
from inhouse_server.engines import OpenAIEngine
from inhouse_server.owner import OwnerAddress, find_owner
from inhouse_server.review.past_remarks import PastRemarks
from inhouse_server.review.reviewer import Reader
from inhouse_server.settings import Settings
from inhouse_training import BASE


@contextmanager
def open_reader(root: Path, settings: Settings, state_dir: Path, progress: Progress) -> Iterator[Reader]:
    """A reader over the repository at ``root``.

    Raises:
        Busy: another command holds the repository.
        InhouseError: the model cannot be had.
    """
    owner = find_owner(state_dir)
    if owner is not None:
        yield _reader_of_owner(owner, settings, state_dir)
        return
    from inhouse_server.workspace import Workspace

    with Workspace.open(root, "review") as workspace:
        workspace.refresh(progress)
        yield workspace.reader()


def _reader_of_owner(owner: OwnerAddress, settings: Settings, state_dir: Path) -> Reader:
    """The owner's model over its OpenAI-compatible API, its index over its own."""
    backend = OwnerBackend(owner)

    def search(query: str, limit: int) -> Sequence[Passage]:
        found = backend.search(query, limit)
        return [
            Passage(
                row["path"], row["start_line"], row["end_line"], row["text"], row["source"], "", row["commit"],
                row["score"], tuple(row["legs"]), tuple(row["changes"]), row["updated"], row["newer_code"],
            )
            for row in (*found["results"], *found["beside"])
            if row["source"] != "pull_request"  # the one under review may be among them
        ]  # fmt: skip

    # The reviewer finds its own passages, and no question of a person is asked.
    engine = OpenAIEngine(
        f"{owner.url}/v1",
        settings.base_model,
        api_key=owner.token,
        extra_body={"inhouse": {"retrieve": False}},
        verify=owner.verify(),
    )
    adapter = str(backend.status()["adapter"] or BASE)
    remarks = PastRemarks.of(state_dir)
    own = settings.review
    tokens = settings.answer.prompt_tokens
    return Reader(engine, adapter, search, remarks, tokens, own.tokens, own.samples, own.second_look)
