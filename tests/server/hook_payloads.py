"""What GitHub and GitLab send to a webhook, in few fields: those that are read, and some that are not.

https://docs.github.com/webhooks/webhook-events-and-payloads,
https://docs.gitlab.com/user/project/integrations/webhook_events/
"""

from __future__ import annotations

import hashlib
import hmac
import json
from itertools import count
from typing import Any

SECRET = "0123456789abcdef0123456789abcdef"
HEAD, LATER = "a" * 40, "b" * 40
_ids = count(1)


def github_pull(action: str = "opened", head: str = HEAD, number: int = 77, **pull: Any) -> dict[str, Any]:
    return {
        "action": action,
        "number": number,
        "pull_request": {"number": number, "state": "open", "draft": False, "head": {"sha": head}, **pull},
        "repository": {"full_name": "acme/shop"},
        "sender": {"id": 5, "type": "User"},
    }


def github_comment(body: str, association: str = "MEMBER", sender: int = 5, kind: str = "User") -> dict[str, Any]:
    author = {"id": 5, "type": kind}
    return {
        "action": "created",
        "issue": {"number": 77, "pull_request": {"url": "https://api.github.com/repos/acme/shop/pulls/77"}},
        "comment": {"id": 1, "body": body, "user": author, "author_association": association},
        "repository": {"full_name": "acme/shop"},
        "sender": {"id": sender, "type": kind},
    }


def gitlab_merge(action: str = "open", head: str = HEAD, **about: Any) -> dict[str, Any]:
    attributes = {"iid": 77, "state": "opened", "action": action, "draft": False, "last_commit": {"id": head}, **about}
    return {
        "object_kind": "merge_request",
        "user": {"id": 5},
        "project": {"path_with_namespace": "acme/tools/shop"},
        "object_attributes": attributes,
    }


def gitlab_note(body: str, author: int = 5, **about: Any) -> dict[str, Any]:
    note = {"note": body, "noteable_type": "MergeRequest", "author_id": author, "action": "create", "system": False}
    return {
        "object_kind": "note",
        "user": {"id": 5},
        "project": {"path_with_namespace": "acme/tools/shop"},
        "object_attributes": {**note, **about},
        "merge_request": {"iid": 77},
    }


def github_delivery(
    payload: Any, event: str = "pull_request", secret: str = SECRET, name: str = ""
) -> tuple[bytes, dict[str, str]]:
    """Body and headers, as GitHub sends them."""
    body = json.dumps(payload).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return body, {
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": name or f"delivery-{next(_ids)}",
        "X-Hub-Signature-256": f"sha256={signature}",
    }


def gitlab_delivery(
    payload: Any, event: str = "Merge Request Hook", secret: str = SECRET
) -> tuple[bytes, dict[str, str]]:
    """Body and headers, as GitLab sends them."""
    return json.dumps(payload).encode(), {
        "X-Gitlab-Event": event,
        "X-Gitlab-Event-UUID": f"delivery-{next(_ids)}",
        "X-Gitlab-Token": secret,
    }
