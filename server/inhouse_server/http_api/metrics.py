"""`/metrics`: what the owner does, as Prometheus reads it. No label holds what anybody sent or asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from inhouse_server.access import Handled, Work
from inhouse_server.answers import AnswerFinished
from inhouse_server.http_api.activity import Activity
from inhouse_server.http_api.repositories import usable_by

_SECONDS = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """The figures of one owner.

    Args:
        audit_failures: lines of the audit log that could not be written.
        model_servers: what :meth:`Workspace.model_servers` tells.
    """

    def __init__(
        self,
        activity: Activity,
        audit_failures: Callable[[], int],
        model_servers: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "inhouse_requests", "Requests by route and status", ["route", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "inhouse_request_seconds", "Time until a request ended", ["route"], buckets=_SECONDS, registry=registry
        )
        self._answers = Counter("inhouse_answers", "Answers by why they ended", ["reason"], registry=registry)
        self._tokens = Counter("inhouse_tokens", "Tokens read and written", ["kind"], registry=registry)
        self._texts = Counter("inhouse_embedded_texts", "Texts that were embedded for clients", registry=registry)
        self._first_token = Histogram(
            "inhouse_first_token_seconds", "Time to the first token", buckets=_SECONDS, registry=registry
        )
        self._retrieve = Histogram(
            "inhouse_retrieve_seconds", "Time of the search before an answer", buckets=_SECONDS, registry=registry
        )
        self._by_repository = [
            Counter(f"inhouse_repository_{name}", what, ["repository", label], registry=registry)
            for name, what, label in (
                ("requests", "Requests about a repository, by status", "status"),
                ("answers", "Its answers by why they ended", "reason"),
                ("tokens", "Tokens read and written for it", "kind"),
            )
        ]
        for name, what, value in (
            ("inhouse_answering", "Requests that are being answered", lambda: activity.answering),
            ("inhouse_connections", "Those and editors that are connected", lambda: activity.open),
            ("inhouse_draining", "1 while the owner is stopping", lambda: int(activity.draining)),
            ("inhouse_audit_failures", "Lines of the audit log that were lost", audit_failures),
        ):
            Gauge(name, what, registry=registry).set_function(value)
        registry.register(_ModelServers(model_servers))

    def request(self, handled: Handled) -> None:
        """Count a request that ended."""
        self._requests.labels(handled.route, handled.method, str(handled.status)).inc()
        if handled.status != 101:  # a WebSocket that has only opened
            self._seconds.labels(handled.route).observe(handled.seconds)
        if handled.repository:
            self._by_repository[0].labels(handled.repository, str(handled.status)).inc()
        if (work := handled.work) is not None:
            self._worked(work)

    def _worked(self, work: Work) -> None:
        if work.kind == "embedding":
            self._tokens.labels("embedded").inc(work.prompt_tokens)
            self._texts.inc(work.texts)
        elif work.kind == "completion":
            self._tokens.labels("inline prompt").inc(work.prompt_tokens)
            self._tokens.labels("inline completion").inc(work.completion_tokens)
        # An answer is counted when it has ended, also where its client left before.

    def answer(self, repository: str, finished: AnswerFinished) -> None:
        """Count an answer, of whatever surface, about a repository; by its name where it has one."""
        timings = finished.timings
        if repository:
            _, answers, tokens = self._by_repository
            answers.labels(repository, finished.reason).inc()
            tokens.labels(repository, "prompt").inc(timings.prompt_tokens)
            tokens.labels(repository, "completion").inc(timings.completion_tokens)
        self._answers.labels(finished.reason).inc()
        self._tokens.labels("prompt").inc(timings.prompt_tokens)
        self._tokens.labels("completion").inc(timings.completion_tokens)
        self._first_token.observe(timings.first_token_ms / 1000)
        self._retrieve.observe(timings.retrieve_ms / 1000)


class _ModelServers(Collector):
    """The vLLM servers, asked of the fleet when Prometheus asks; nothing where there are none."""

    def __init__(self, told: Callable[[], dict[str, Any]]) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        told = self._told()
        up = GaugeMetricFamily("inhouse_model_server_up", "1 where the server answers", labels=["server"])
        answering = GaugeMetricFamily("inhouse_model_server_answering", "Answers under way", labels=["server"])
        refused = GaugeMetricFamily(
            "inhouse_model_server_refused", "Adapter versions that failed there", labels=["server"]
        )
        for server in told.get("servers", ()):
            up.add_metric([server["url"]], int(server["up"]))
            answering.add_metric([server["url"]], server["answering"])
            refused.add_metric([server["url"]], len(server["failed"]))
        waiting = GaugeMetricFamily(
            "inhouse_promotion_waiting", "1 while the promoted version is not on all model servers"
        )
        if told:
            waiting.add_metric([], int(told["waiting"] is not None))
        yield from (up, answering, refused, waiting)


class _Shown(Collector):
    """What of a registry's figures is shown: those of repositories only where the caller may use them."""

    def __init__(self, registry: CollectorRegistry, repositories: Collection[str]) -> None:
        self._registry = registry
        self._repositories = repositories

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if s.labels.get("repository") in (None, *self._repositories)]
            yield metric


async def metrics(request: Request) -> Response:
    """The figures, in Prometheus' text format."""
    shown = _Shown(request.app.state.metrics.registry, usable_by(request))
    text = await run_in_threadpool(generate_latest, shown)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
