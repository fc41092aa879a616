"""Pull requests and the readers that find them."""

from __future__ import annotations

from inhouse_retrieval.pull_requests.git_history import read_pull_requests
from inhouse_retrieval.pull_requests.pull_request import ChangedFile, PullRequest

__all__ = ["ChangedFile", "PullRequest", "read_pull_requests"]
