"""The assistant on its own: what happens before there is an answer."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event, Timer

import pytest

from inhouse_retrieval import Cancelled, Index, Repository
from inhouse_server.answers import Question
from inhouse_server.assistant import Assistant
from inhouse_server.settings import AnswerSettings
from inhouse_training import Engine, Registry


def test_a_question_is_cancelled_while_the_model_loads(shop: Path, tmp_path: Path) -> None:
    loading, let_go = Event(), Event()

    def slow_engine() -> Engine:
        loading.set()
        let_go.wait(30)
        raise AssertionError("nobody waits for it any more")

    cancel = Event()
    repository = Repository.open(shop)
    with Index.open(repository, tmp_path / "state") as index:
        index.refresh(embed=False)
        assistant = Assistant(slow_engine, index, Registry(tmp_path / "adapters"), AnswerSettings())
        answer = assistant.ask(Question("When do couriers come?"), cancel)
        Timer(0.5, cancel.set).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            next(answer)
        assert loading.is_set()
        assert time.monotonic() - began < 5
        let_go.set()
