"""Reading a repository, indexing it, searching it. What is named here is the package's public surface.

Names load on first use, so that importing the package costs nothing: an editor's relay needs its errors only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .beside import open_beside as open_beside
    from .beside import readable_beside as readable_beside
    from .beside import status_beside as status_beside
    from .chunking import Chunk as Chunk
    from .chunking import chunk_text as chunk_text
    from .definitions import Definitions as Definitions
    from .definitions import LastChange as LastChange
    from .definitions import Name as Name
    from .definitions import Place as Place
    from .definitions import Use as Use
    from .definitions import is_name as is_name
    from .definitions import name_at as name_at
    from .embedding import Encoder as Encoder
    from .encoders.choice import EncoderChoice as EncoderChoice
    from .encoders.choice import load_encoder as load_encoder
    from .errors import Busy as Busy
    from .errors import Cancelled as Cancelled
    from .errors import InhouseError as InhouseError
    from .errors import NoCommits as NoCommits
    from .errors import NotARepository as NotARepository
    from .errors import StateUnwritable as StateUnwritable
    from .export_paths import ExportPaths as ExportPaths
    from .exports import Thread as Thread
    from .exports import exports_digest as exports_digest
    from .exports import read_exports as read_exports
    from .exports import thread_until as thread_until
    from .history import HistoryChange as HistoryChange
    from .history import read_changes as read_changes
    from .history import todays_names as todays_names
    from .html_pages import page_text as page_text
    from .index import Index as Index
    from .index_report import IndexReport as IndexReport
    from .index_report import IndexStatus as IndexStatus
    from .passage import Passage as Passage
    from .passage import SearchResult as SearchResult
    from .progress import Progress as Progress
    from .progress import no_progress as no_progress
    from .pull_request_pages import numbers_named as numbers_named
    from .pull_requests import ChangedFile as ChangedFile
    from .pull_requests import Comment as Comment
    from .pull_requests import InnerCommit as InnerCommit
    from .pull_requests import PullRequest as PullRequest
    from .pull_requests import ReviewComment as ReviewComment
    from .pull_requests import read_message as read_message
    from .pull_requests import read_origin as read_origin
    from .pull_requests import read_pull_requests as read_pull_requests
    from .pull_requests.enrichment import said_until as said_until
    from .pull_requests.enrichment import with_forge as with_forge
    from .pull_requests.forge import Clock as Clock
    from .pull_requests.forge import Forge as Forge
    from .pull_requests.forge import ForgeClient as ForgeClient
    from .pull_requests.forge import ForgeRefusal as ForgeRefusal
    from .pull_requests.store import PullRequestStore as PullRequestStore
    from .pull_requests.sync import SyncReport as SyncReport
    from .pull_requests.sync import sync_pull_requests as sync_pull_requests
    from .repository import Repository as Repository
    from .reranking import Reranker as Reranker
    from .reranking import RerankerChoice as RerankerChoice
    from .secrets import Redaction as Redaction
    from .secrets import Secret as Secret
    from .secrets import find_secrets as find_secrets
    from .secrets import redact as redact
    from .secrets import redactions_in as redactions_in
    from .snapshot import SkippedFile as SkippedFile
    from .snapshot import Snapshot as Snapshot
    from .snapshot import TrackedFile as TrackedFile
    from .syntax import is_same_code as is_same_code
    from .syntax import syntax_errors as syntax_errors
    from .terms import identifiers as identifiers
    from .terms import index_terms as index_terms
    from .terms import match_expression as match_expression
    from .vector_client import vector_place as vector_place
    from .watching import watch as watch
    from .wiki import Wiki as Wiki
    from .within import EVERYWHERE as EVERYWHERE
    from .within import Within as Within
    from .work_tree import top_of_work_tree as top_of_work_tree

_MODULE_OF = {
    "Busy": "errors",
    "Cancelled": "errors",
    "ChangedFile": "pull_requests",
    "Chunk": "chunking",
    "Clock": "pull_requests.forge",
    "Comment": "pull_requests",
    "Definitions": "definitions",
    "Encoder": "embedding",
    "EncoderChoice": "encoders.choice",
    "ExportPaths": "export_paths",
    "Forge": "pull_requests.forge",
    "ForgeClient": "pull_requests.forge",
    "ForgeRefusal": "pull_requests.forge",
    "HistoryChange": "history",
    "Index": "index",
    "IndexReport": "index_report",
    "IndexStatus": "index_report",
    "InhouseError": "errors",
    "InnerCommit": "pull_requests",
    "LastChange": "definitions",
    "Name": "definitions",
    "NoCommits": "errors",
    "NotARepository": "errors",
    "Passage": "passage",
    "Place": "definitions",
    "Progress": "progress",
    "PullRequest": "pull_requests",
    "PullRequestStore": "pull_requests.store",
    "Redaction": "secrets",
    "Repository": "repository",
    "Reranker": "reranking",
    "RerankerChoice": "reranking",
    "ReviewComment": "pull_requests",
    "SearchResult": "passage",
    "Secret": "secrets",
    "SkippedFile": "snapshot",
    "Snapshot": "snapshot",
    "StateUnwritable": "errors",
    "SyncReport": "pull_requests.sync",
    "Thread": "exports",
    "TrackedFile": "snapshot",
    "Use": "definitions",
    "Wiki": "wiki",
    "chunk_text": "chunking",
    "exports_digest": "exports",
    "find_secrets": "secrets",
    "identifiers": "terms",
    "index_terms": "terms",
    "is_name": "definitions",
    "load_encoder": "encoders.choice",
    "match_expression": "terms",
    "name_at": "definitions",
    "no_progress": "progress",
    "numbers_named": "pull_request_pages",
    "open_beside": "beside",
    "page_text": "html_pages",
    "read_changes": "history",
    "read_exports": "exports",
    "read_message": "pull_requests",
    "read_origin": "pull_requests",
    "read_pull_requests": "pull_requests",
    "readable_beside": "beside",
    "redact": "secrets",
    "redactions_in": "secrets",
    "said_until": "pull_requests.enrichment",
    "sync_pull_requests": "pull_requests.sync",
    "status_beside": "beside",
    "is_same_code": "syntax",
    "syntax_errors": "syntax",
    "thread_until": "exports",
    "todays_names": "history",
    "EVERYWHERE": "within",
    "Within": "within",
    "vector_place": "vector_client",
    "watch": "watching",
    "top_of_work_tree": "work_tree",
    "with_forge": "pull_requests.enrichment",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
