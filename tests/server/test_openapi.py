"""The OpenAPI document: it names every route, and a real owner keeps to it whatever schemathesis sends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from jsonschema import Draft202012Validator

from inhouse_server.http_api.openapi import openapi
from inhouse_server.http_api.routes import ACCESS
from inhouse_server.owner import OwnerAddress

from .speaker import scripted_owner

NOT_IN_THE_DOCUMENT = {
    "/", "/admin", "/web/{name}", "/inhouse/adapters/{version}/{name}", "/lsp", "/mcp", "/openapi.json", "/metrics"
}  # fmt: skip
MODELS = {
    "ChatRequest": ["inhouse", "base", "nobody"],
    "CompletionRequest": ["inhouse", "base", "nobody"],
    "EmbeddingRequest": ["all-MiniLM-L6-v2", "nobody"],
}
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "1000"))
"""Requests that schemathesis makes of each operation, about."""


def test_the_document_names_every_route_with_its_scope() -> None:
    document = openapi()
    assert set(document["paths"]) == set(ACCESS) - NOT_IN_THE_DOCUMENT
    for path, operations in document["paths"].items():
        ((_, operation),) = operations.items()
        scope = ACCESS[path].scope
        assert (scope is None) == (operation.get("security") == [])
        assert scope is None or scope.value in operation["description"]


def test_every_reference_of_the_document_leads_to_a_schema() -> None:
    document = openapi()
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}:
        assert reference in schemas


@pytest.fixture(scope="module")
def owner(shop: Path) -> Iterator[OwnerAddress]:
    with scripted_owner(shop) as found:
        yield found


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_owner_keeps_to_the_document_whatever_is_sent(owner: OwnerAddress, shop: Path, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {owner.token}"}
    document = httpx.get(f"{owner.url}/openapi.json", headers=headers).json()
    # Which models there are depends on the repository; a generated name would seldom be one of them.
    for body, names in MODELS.items():
        document["components"]["schemas"][body]["properties"]["model"] = {"enum": names}
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    command = [Path(sys.executable).with_name("schemathesis"), "run", tmp_path / "openapi.json", "--url", owner.url]
    options = [
        "--header", f"Authorization: Bearer {owner.token}", "--max-examples", str(EXAMPLES), "--workers", "2",
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        "--exclude-path-regex", "shutdown|index|feedback", "--no-color", "--seed", "1", "--request-timeout", "60",
        "--phases", "examples,coverage,fuzzing", "--max-failures", "5",
    ]  # fmt: skip
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert httpx.get(f"{owner.url}/inhouse/status", headers=headers, timeout=60).status_code == 200
    log = (shop / ".inhouse" / "logs" / "owner.log").read_text(encoding="utf-8")
    assert "Traceback" not in log, log[-4000:]
