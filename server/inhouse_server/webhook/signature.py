"""Whether a delivery comes from the forge: its signature or secret token, and the names that it is remembered by."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from inhouse_retrieval import InhouseError
from inhouse_retrieval.pull_requests.forge import Kind

SHORTEST_SECRET = 16
"""Characters. A secret can be guessed offline from one delivery of GitHub, so it has to be a long one."""
_LONGEST_NAME = 200


class Signature:
    """How deliveries of one forge are proven.

    GitHub signs the body (https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries); GitLab sends
    the secret itself (https://docs.gitlab.com/user/project/integrations/webhooks/#create-a-webhook).

    Raises:
        InhouseError: the secret is too short.
    """

    def __init__(self, kind: Kind, secret: str, source: str) -> None:
        if len(secret) < SHORTEST_SECRET:
            raise InhouseError(
                f"{source} holds no secret of at least {SHORTEST_SECRET} characters, and without one nothing is "
                "received.",
                "Make one (openssl rand -hex 32), set it there and at the forge's webhook.",
            )
        self._kind = kind
        self._secret = secret.encode()

    def proves(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether the forge sent exactly ``body``; takes as long for a wrong proof as for a right one.

        Args:
            headers: by name in lower case.
            body: as it came, not as it was parsed.
        """
        if self._kind == "gitlab":
            given, wanted = headers.get("x-gitlab-token", "").encode(), self._secret
        else:
            given = headers.get("x-hub-signature-256", "").encode()
            wanted = b"sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest().encode()
        return hmac.compare_digest(given, wanted)

    def names(self, headers: Mapping[str, str], body: bytes) -> tuple[str, str] | None:
        """What the delivery is remembered by: the forge's id for it, and its body; ``None`` when it has no id.

        Both, since the signature does not cover the id: whoever repeats a body may give it another one.
        """
        kinds = ("idempotency-key", "x-gitlab-event-uuid") if self._kind == "gitlab" else ("x-github-delivery",)
        given = next((headers[kind] for kind in kinds if headers.get(kind)), "")
        if not given or len(given) > _LONGEST_NAME:
            return None
        return given, hashlib.sha256(body).hexdigest()
