"""TLS: the owner's certificate, and whom its clients trust."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from inhouse_retrieval.errors import InhouseError

if TYPE_CHECKING:
    from inhouse_server.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Protected:
    """How clients reach an owner: over TLS that it ends itself, through a proxy that does, or from this machine alone.

    Raises:
        InhouseError: a certificate without its key, or the other way round.
    """

    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InhouseError("A certificate and its key belong together.", "Give --tls-cert and --tls-key.")

    @classmethod
    def of(cls, server: ServerSettings, root: Path) -> Protected:
        """As ``[server]`` says; paths there begin at the repository's root."""

        def path(said: str | None) -> Path | None:
            return (root / Path(said).expanduser()).resolve() if said else None

        return cls(path(server.tls_cert), path(server.tls_key), server.behind_proxy)


def check_certificate(certificate: Path, key: Path) -> None:
    """Make sure that the owner can listen with this pair.

    Raises:
        InhouseError: a file cannot be read, is encrypted, or does not belong to the other.
    """

    def no_password() -> str:
        raise ValueError("the key is encrypted")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or str(error)
        raise InhouseError(
            f"The certificate {certificate} and the key {key} cannot be used: {reason}.",
            "Give a certificate chain and its key without a password, both in PEM.",
        ) from error


def trusting_only(certificate: Path) -> ssl.SSLContext:
    """For the owner's own machine: this certificate whatever its name and whoever signed it, and no other.

    Raises:
        InhouseError: it cannot be read.
    """
    context = trusting(certificate)
    context.check_hostname = False  # it names the team's server, which is asked for here as 127.0.0.1
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def trusting(authority: Path | None) -> ssl.SSLContext:
    """Whom the system trusts, or the authority in a file alone.

    Raises:
        InhouseError: the file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as error:  # ssl.SSLError is one
        raise InhouseError(
            f"{authority} cannot be used as certificate authority: {error.strerror or error}.",
            "Give a file of certificates in PEM.",
        ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_listener(host: str, tls: bool, behind_proxy: bool) -> None:
    """Refuse to carry tokens and code over a network in the clear.

    Raises:
        InhouseError: ``host`` is beyond loopback, and neither TLS nor a proxy protects it.
    """
    if not (tls or behind_proxy or is_loopback(host)):
        raise InhouseError(
            f"Listening on {host} without TLS would send tokens and code over the network in the clear.",
            "Give --tls-cert and --tls-key, or --behind-proxy where a reverse proxy ends TLS.",
        )


def web_socket_address(url: str) -> str:
    """The ``/lsp`` of a server whose address begins with http, https, ws or wss.

    Raises:
        InhouseError: it is no such address, or would carry a token over a network in the clear.
    """
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname or parts.query or parts.fragment:
        raise InhouseError(f"{url!r} is no server's address.", "Write it as wss://HOST:PORT.")
    if scheme == "ws" and not is_loopback(parts.hostname):
        raise InhouseError(
            f"The token would reach {parts.hostname} over the network in the clear.", "Use wss:// or https://."
        )
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/lsp"
