"""What these tests write about, and the words in which they ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inhouse_training import (
    EndpointGenerator,
    ReplyCache,
    Task,
    plan_tasks,
    synthesize,
)
from inhouse_training.dataset import Dataset
from inhouse_training.documents import Kind
from inhouse_training.recipe import Recipe
from inhouse_training.synthesis.sources import Section

from .chat_server import KEY, ChatServer

KINDS: tuple[Kind, ...] = ("qa", "explanation", "relation", "raft", "absent", "lookup")

GUIDE = (
    "# Refunds\n\nA refund is signed off by a clerk of the same tenant. Larger refunds wait for two clerks.\n\n"
    "The ledger keeps each refund for seven years, and nobody may change what it keeps afterwards.\n\n"
    "A customer hears of a refund by letter, never by telephone, since telephone calls cannot be audited.\n"
)
DESK = '''"""The desk: where clerks take what customers bring."""

from handlers.area0 import update_invoice


async def take_from_customer(request: HouseRequest, ledger: AuditLedger) -> HouseReply:
    """Take a request at the desk, and pass it on to the handler of invoices."""
    reply = await update_invoice(request, ledger)
    return reply
'''


PAGE = Section("docs/refunds.md", "b1", 11, 17, GUIDE, True, ("Refunds",))
CODE = Section("desk.py", "b2", 1, 10, DESK, False, ("take_from_customer",))


def with_data(recipe: Recipe, **data: Any) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})


def with_shares(recipe: Recipe, share: float = 0.15) -> Recipe:
    usual = {"file_share": 0.1, "conversation_share": 0.1, "change_share": 0.05}
    return with_data(recipe, **usual, **{f"{kind}_share": share for kind in KINDS})


def tasks_of(sections: list[Section], *kinds: Kind) -> list[Task]:
    return plan_tasks(sections, kinds or KINDS, "shop")


def endpoint(server: ChatServer, **options: Any) -> EndpointGenerator:
    return EndpointGenerator(server.url, "writer", KEY, "$WRITER_KEY", **{"concurrency": 3, **options})


def run(tasks: list[Task], server: ChatServer, state: Path, bound: int = 1_000_000, **options: Any) -> Any:
    with ReplyCache(state) as cache:
        return synthesize(tasks, endpoint(server, **options), cache, bound)


def rows_of(dataset: Dataset, kind: Kind) -> list[tuple[dict[str, Any], list[dict[str, str]]]]:
    found = [row for row in dataset.rows if row["kind"] == kind]
    return [(json.loads(row["origin"]), json.loads(row["messages"])["messages"]) for row in found]
