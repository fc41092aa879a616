"""Reading a repository, indexing it, searching it. What is named here is the package's public surface.

Importing it is quick: torch, Chroma and sentence-transformers load when a vector is first needed.
"""

from inhouse_retrieval.chunking import Chunk, chunk_text
from inhouse_retrieval.embedding import DEFAULT_ENCODER, Encoder, load_encoder
from inhouse_retrieval.errors import (
    Busy,
    Cancelled,
    InhouseError,
    NoCommits,
    NotARepository,
    StateUnwritable,
)
from inhouse_retrieval.index import Index, IndexReport, IndexStatus, watch
from inhouse_retrieval.passage import Passage, SearchResult
from inhouse_retrieval.progress import Progress, no_progress
from inhouse_retrieval.pull_requests import ChangedFile, PullRequest, read_pull_requests
from inhouse_retrieval.repository import Repository, SkippedFile, Snapshot, TrackedFile
from inhouse_retrieval.secrets import Redaction, redact

__all__ = [
    "DEFAULT_ENCODER",
    "Busy",
    "Cancelled",
    "ChangedFile",
    "Chunk",
    "Encoder",
    "Index",
    "IndexReport",
    "IndexStatus",
    "InhouseError",
    "NoCommits",
    "NotARepository",
    "Passage",
    "Progress",
    "PullRequest",
    "Redaction",
    "Repository",
    "SearchResult",
    "SkippedFile",
    "Snapshot",
    "StateUnwritable",
    "TrackedFile",
    "chunk_text",
    "load_encoder",
    "no_progress",
    "read_pull_requests",
    "redact",
    "watch",
]
