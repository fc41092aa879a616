"""The JSON that the command line and the HTTP API print. Stable: fields are added, never renamed or removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from inhouse_retrieval import IndexReport, Passage, Place, SearchResult, Use
from inhouse_server.answers import AnswerFinished
from inhouse_training import AdapterVersion


def search_json(result: SearchResult, limit: int) -> dict[str, Any]:
    """``{"results": […], "index_commit", "pending", "beside": […], "unembedded", "to_rerank", "reranked"}``.

    Both lists are best first. ``results`` holds ``limit`` passages at most; ``beside`` what follows, since pull
    requests are found beside as many passages of code and wiki.
    """
    return {
        "results": [passage_json(passage) for passage in result.passages[:limit]],
        "beside": [passage_json(passage) for passage in result.passages[limit:]],
        "index_commit": result.index_commit,
        "pending": result.pending,
        "unembedded": result.unembedded,
        "to_rerank": result.to_rerank,
        "reranked": result.reranked,
    }


def uses_json(definitions: Sequence[Place], uses: Sequence[Use], more: bool) -> dict[str, Any]:
    """``{"definitions": […], "uses": […], "more"}``: path, line and code of each; ``more`` where uses were left out."""
    return {
        "definitions": [
            {"path": place.path, "line": place.line, "last_line": place.last, "code": place.code}
            for place in definitions
        ],
        "uses": [asdict(use) for use in uses],
        "more": more,
    }


def passage_json(passage: Passage) -> dict[str, Any]:
    """A passage with its text, and why it was found: ``legs`` and ``changes``."""
    return {
        "path": passage.path,
        "start_line": passage.start_line,
        "end_line": passage.end_line,
        "score": passage.score,
        "source": passage.source,
        "legs": list(passage.legs),
        "changes": list(passage.changes),
        "commit": passage.commit,
        "updated": passage.updated,
        "newer_code": passage.newer_code,
        "text": passage.text,
    }


def location_json(passage: Passage) -> dict[str, Any]:
    """``{"path", "start_line", "end_line"}``."""
    return {"path": passage.path, "start_line": passage.start_line, "end_line": passage.end_line}


def answer_json(text: str, finished: AnswerFinished) -> dict[str, Any]:
    """``{"answer", "citations", "provenance", "timings"}`` and what the user should know."""
    return {
        "answer": text,
        "citations": [location_json(passage) for passage in finished.citations],
        "omitted": [location_json(passage) for passage in finished.omitted],
        "notes": list(finished.notes),
        "reason": finished.reason,
        "provenance": asdict(finished.provenance),
        "timings": asdict(finished.timings),
    }


def index_json(report: IndexReport) -> dict[str, Any]:
    """``{"files", "chunks", "embedded", "reused", "skipped", "redactions", "encoder", "former_encoder", …}``."""
    return {
        "files": report.files,
        "chunks": report.chunks,
        "embedded": report.embedded,
        "reused": report.reused,
        "skipped": [{"path": skipped.path, "reason": skipped.reason} for skipped in report.skipped],
        "redactions": [{"path": path, "line": line, "kind": kind} for path, line, kind in report.redactions],
        "without_syntax": dict(report.without_syntax),
        "encoder": report.encoder,
        "former_encoder": report.former_encoder,
        "seconds": round(report.seconds, 3),
        "commit": report.commit,
    }


def adapter_json(version: AdapterVersion, current: str | None) -> dict[str, Any]:
    """``{"version", "created", "base_model", "snapshot", "current", "evaluated", "metrics"}``."""
    manifest = version.manifest
    return {
        "version": version.version,
        "created": manifest.created,
        "base_model": manifest.base_model,
        "snapshot": manifest.snapshot,
        "current": version.version == current,
        "evaluated": manifest.evaluated,
        "metrics": manifest.metrics,
    }
