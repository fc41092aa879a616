"""TLS: who is trusted, what is refused in the clear, and that everything on this machine still finds the owner."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from inhouse_retrieval.errors import InhouseError
from inhouse_server.cli import main
from inhouse_server.owner import OwnerAddress, find_owner, stop_owner
from inhouse_server.tls import (
    Protected,
    check_certificate,
    check_listener,
    trusting,
    trusting_only,
    web_socket_address,
)
from inhouse_server.workspace import Workspace

from .conftest import make_repository
from .editor import editor
from .house import INHOUSE, wait_for_owner
from .listening import AUTHORISED, listening


def certificate(folder: Path, name: str, *hosts: str, authority: str | None = None) -> tuple[Path, Path]:
    """``name.pem`` and ``name.key`` in ``folder``, signed by ``authority`` there, or by itself as an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signing = subject, key
    if authority is not None:
        issuer = x509.load_pem_x509_certificate((folder / f"{authority}.pem").read_bytes()).subject
        loaded = serialization.load_pem_private_key((folder / f"{authority}.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signing = loaded
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
    )
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made, kept = folder / f"{name}.pem", folder / f"{name}.key"
    made.write_bytes(builder.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    kept.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made, kept


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a certificate of it for localhost, one for the team's name alone, and one of somebody else."""
    folder = tmp_path_factory.mktemp("certificates")
    certificate(folder, "authority")
    certificate(folder, "here", "localhost", "127.0.0.1", authority="authority")
    certificate(folder, "team", "inhouse.example", authority="authority")
    certificate(folder, "other", "localhost", "127.0.0.1")
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(make_repository(tmp_path / "tls"), "test") as held:
        yield held


def test_over_tls_only_those_who_trust_it_connect(workspace: Workspace, certificates: Path) -> None:
    with listening(workspace, certificates / "here.pem", certificates / "here.key") as served:
        url = f"{served.url}/v1/models"
        trusted = trusting(certificates / "authority.pem")
        assert httpx.get(url, headers=AUTHORISED, verify=trusted).status_code == 200
        assert httpx.get(url, verify=trusted).status_code == 401
        for context in (trusting(None), trusting(certificates / "other.pem")):
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                httpx.get(url, headers=AUTHORISED, verify=context)
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http"), headers=AUTHORISED)
        page = httpx.get(served.url, params={"token": AUTHORISED["Authorization"].split()[1]}, verify=trusted)
        assert "; Secure" in page.headers["set-cookie"]


def test_this_machine_trusts_the_owner_s_certificate_alone_whatever_its_name(
    workspace: Workspace, certificates: Path
) -> None:
    with listening(workspace, certificates / "team.pem", certificates / "team.key") as served:
        url = f"{served.url}/healthz"
        assert httpx.get(url, verify=trusting_only(certificates / "team.pem")).status_code == 200
        # Signed by the same authority, and still another one.
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, verify=trusting_only(certificates / "here.pem"))
        with pytest.raises(httpx.ConnectError, match="IP address mismatch"):
            httpx.get(url, verify=trusting(certificates / "authority.pem"))
    assert isinstance(OwnerAddress("https://x", "t", certificates / "team.pem").verify(), ssl.SSLContext)


def test_a_pair_that_does_not_belong_together_is_refused(certificates: Path, tmp_path: Path) -> None:
    check_certificate(certificates / "here.pem", certificates / "here.key")
    encrypted = tmp_path / "encrypted.key"
    key = serialization.load_pem_private_key((certificates / "here.key").read_bytes(), None)
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    for pair in (
        (certificates / "here.pem", certificates / "other.key"),
        (certificates / "here.key", certificates / "here.key"),
        (certificates / "here.pem", tmp_path / "missing"),
        (certificates / "here.pem", encrypted),
    ):
        with pytest.raises(InhouseError, match="cannot be used"):
            check_certificate(*pair)
    with pytest.raises(InhouseError, match="belong together"):
        Protected(certificates / "here.pem")
    with pytest.raises(InhouseError, match="certificate authority"):
        trusting(tmp_path / "missing")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "team.example", ""])
def test_beyond_loopback_nothing_is_served_in_the_clear(host: str) -> None:
    with pytest.raises(InhouseError, match="in the clear"):
        check_listener(host, tls=False, behind_proxy=False)
    check_listener(host, tls=True, behind_proxy=False)
    check_listener(host, tls=False, behind_proxy=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST"])
def test_loopback_needs_no_tls(host: str) -> None:
    check_listener(host, tls=False, behind_proxy=False)


def test_the_command_refuses_before_it_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_repository(tmp_path / "shop")
    assert main(["serve", "--repo", str(root), "--host", "0.0.0.0", "--port", "0"]) == 1
    assert "in the clear" in capsys.readouterr().err
    assert not (root / ".inhouse" / "owner.json").exists()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://inhouse.example", "wss://inhouse.example/lsp"),
        ("wss://inhouse.example:8470/", "wss://inhouse.example:8470/lsp"),
        ("https://example.org/team/inhouse", "wss://example.org/team/inhouse/lsp"),
        ("http://127.0.0.1:8470", "ws://127.0.0.1:8470/lsp"),
        ("ws://[::1]:8470", "ws://[::1]:8470/lsp"),
    ],
)
def test_a_server_s_address_is_written_in_several_ways(url: str, address: str) -> None:
    assert web_socket_address(url) == address


@pytest.mark.parametrize(
    "url", ["inhouse.example", "ftp://inhouse.example", "wss://", "wss://x/?token=y", "https:///x"]
)
def test_what_is_no_server_s_address_is_refused(url: str) -> None:
    with pytest.raises(InhouseError, match="no server's address"):
        web_socket_address(url)


@pytest.mark.parametrize("url", ["http://inhouse.example", "ws://192.0.2.1:8470"])
def test_a_token_never_crosses_a_network_in_the_clear(url: str) -> None:
    with pytest.raises(InhouseError, match="in the clear"):
        web_socket_address(url)


@pytest.mark.long
async def test_a_team_s_server_over_tls_from_end_to_end(tmp_path: Path, certificates: Path) -> None:
    root = make_repository(tmp_path / "served")
    mine = tmp_path / "mine"
    subprocess.run(["git", "clone", "-q", root, mine], check=True)
    pair = ["--tls-cert", certificates / "here.pem", "--tls-key", certificates / "here.key"]
    environment = {**os.environ, "INHOUSE_LOG": "debug"}
    log = (tmp_path / "stderr.log").open("wb")
    process = subprocess.Popen([INHOUSE, "serve", "--repo", root, "--port", "0", *pair], stderr=log, env=environment)
    try:
        wait_for_owner(root)
        found = find_owner(root / ".inhouse")
        assert found is not None and found.url.startswith("https://")
        # The command line of this machine needs to be told nothing.
        done = subprocess.run([INHOUSE, "status", "--json", "--repo", root], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["owner"] == found.url
        made = subprocess.run(
            [INHOUSE, "token", "create", "Ada", "--json", "--repo", root], capture_output=True, text=True, check=True
        )
        token = json.loads(made.stdout)["token"]
        port = found.url.rpartition(":")[2]
        relay = [INHOUSE, "lsp", "--repo", mine, "--server", f"wss://localhost:{port}"]
        trusted = [*relay, "--ca", certificates / "authority.pem"]
        debugging = {"INHOUSE_TOKEN": token, "INHOUSE_LOG": "debug"}
        async with editor(trusted, **debugging) as client:
            await client.initialize(mine)
            assert (await client.request("inhouse/status", timeout=120))["root"] == str(root)
            assert await client.leave() == 0
        async with editor(relay, **debugging) as client:
            refused = await client.response(client.start("initialize", {"capabilities": {}}))
            assert "cannot be reached" in refused["error"]["message"]
        logs = [path.read_text() for path in (*root.glob(".inhouse/logs/*"), *mine.glob(".inhouse/logs/*"))]
        logs.append((tmp_path / "stderr.log").read_text())
        assert len(logs) > 2 and any("DEBUG" in text for text in logs)
        assert not any(token in text or found.token in text for text in logs)
        assert stop_owner(root / ".inhouse")
    finally:
        process.kill()
        process.wait(30)
        log.close()
