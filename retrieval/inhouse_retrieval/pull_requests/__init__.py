"""Pull requests and the readers that find them.

The readers of forges load on first use: they import an HTTP client, which who only reads git's history does not need.
"""

from __future__ import annotations

from inhouse_retrieval.pull_requests.git_history import read_origin, read_pull_requests
from inhouse_retrieval.pull_requests.messages import read_message
from inhouse_retrieval.pull_requests.pull_request import (
    ChangedFile,
    Comment,
    InnerCommit,
    PullRequest,
    ReviewComment,
)

__all__ = [
    "ChangedFile",
    "Comment",
    "InnerCommit",
    "PullRequest",
    "ReviewComment",
    "read_message",
    "read_origin",
    "read_pull_requests",
]
