"""GitHub's published OpenAPI, reduced to the operations that are used, and checking messages against it.

``github_openapi.json`` holds the extract. ``python -m tests.retrieval.forges.openapi api.github.com.json LICENSE``
writes it anew from the npm package that it names.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

PACKAGE = "@octokit/openapi"
VERSION = "23.0.2"
EXTRACT = Path(__file__).with_name("github_openapi.json")

OPERATIONS = {
    "/repos/{owner}/{repo}": ("get",),
    "/repos/{owner}/{repo}/pulls": ("get",),
    "/repos/{owner}/{repo}/pulls/{pull_number}": ("get",),
    "/repos/{owner}/{repo}/pulls/{pull_number}/files": ("get",),
    "/repos/{owner}/{repo}/pulls/{pull_number}/commits": ("get",),
    "/repos/{owner}/{repo}/pulls/{pull_number}/comments": ("get",),
    "/repos/{owner}/{repo}/pulls/{pull_number}/reviews": ("get", "post"),
    "/repos/{owner}/{repo}/issues/{issue_number}/comments": ("get",),
    "/user": ("get",),
}


def extract(openapi: dict[str, Any], licence: str) -> dict[str, Any]:
    """The operations, what they refer to, and their examples; without prose and without the schemas' examples."""
    paths: dict[str, Any] = {}
    for path, methods in OPERATIONS.items():
        for method in methods:
            operation = openapi["paths"][path][method]
            answers = {"200": operation["responses"]["200"]}
            kept = {key: operation[key] for key in ("operationId", "parameters", "requestBody") if key in operation}
            paths.setdefault(path, {})[method] = _bare({**kept, "responses": answers})
    found: dict[str, Any] = {"paths": paths, "components": {}}
    waiting = _references(paths)
    while waiting:
        _, kind, name = waiting.pop().rsplit("/", 2)
        kept = found["components"].setdefault(kind, {})
        if name not in kept:
            whole = openapi["components"][kind][name]
            kept[name] = whole if kind == "examples" else _bare(whole)
            waiting |= _references(kept[name])
    return {"x-origin": {"package": PACKAGE, "version": VERSION, "licence": licence}, **found}


def _bare(value: Any) -> Any:
    if isinstance(value, list):
        return [_bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    prose = {key for key, inner in value.items() if key == "description" and isinstance(inner, str)}
    prose |= {key for key, inner in value.items() if key == "example" and not _is_schema(inner)}
    return {key: _bare(inner) for key, inner in value.items() if key not in prose}


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict) and bool({"type", "$ref", "allOf", "anyOf", "oneOf"} & value.keys())


def _references(value: Any) -> set[str]:
    if isinstance(value, list):
        return {reference for item in value for reference in _references(item)}
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
    return own | {reference for item in value.values() for reference in _references(item)}


class GitHubSchema:
    """The extract, as something to check requests and answers with."""

    def __init__(self) -> None:
        self._openapi = json.loads(EXTRACT.read_text(encoding="utf-8"))
        self._schema = {"components": _as_json_schema(self._openapi["components"])}
        self._validators: dict[str, Draft202012Validator] = {}

    def operation(self, path: str) -> str:
        """Which operation a path is of; raises where the forge has none."""
        for template in OPERATIONS:
            if re.fullmatch(re.sub(r"\\?\{\w+\\?\}", "[^/]+", re.escape(template)), path):
                return template
        raise AssertionError(f"GitHub has no operation for {path}")

    def check_request(self, path: str, query: dict[str, str]) -> None:
        """Every parameter is one of the operation's, with a value that its schema allows."""
        parameters = {}
        for parameter in self._openapi["paths"][self.operation(path)]["get"].get("parameters", ()):
            whole = self._whole(parameter)
            parameters[whole["name"]] = whole
        for name, value in query.items():
            assert parameters.get(name, {}).get("in") == "query", f"{path} takes no parameter {name}"
            schema = parameters[name]["schema"]
            typed = int(value) if schema["type"] == "integer" else value
            Draft202012Validator(_as_json_schema(schema)).validate(typed)

    def check_body(self, path: str, content: Any) -> None:
        """What is posted is what the operation takes, and nothing else: the forge ignores what it does not know."""
        body = self._openapi["paths"][self.operation(path)]["post"]["requestBody"]
        schema = _closed(_as_json_schema(body["content"]["application/json"]["schema"]))
        Draft202012Validator({**self._schema, **schema}).validate(content)

    def check_answer(self, path: str, content: Any, method: str = "get") -> None:
        """The answer is one that the forge documents for this path."""
        template = self.operation(path)
        name = f"{method} {template}"
        if name not in self._validators:
            answer = self._openapi["paths"][template][method]["responses"]["200"]
            schema = _as_json_schema(answer["content"]["application/json"]["schema"])
            self._validators[name] = Draft202012Validator({**self._schema, **schema})
        self._validators[name].validate(content)

    def example(self, name: str) -> Any:
        """One item as GitHub's documentation shows it."""
        value = self._openapi["components"]["examples"][name]["value"]
        return json.loads(json.dumps(value[0] if isinstance(value, list) else value))

    def _whole(self, parameter: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in parameter:
            return parameter
        found: dict[str, Any] = self._openapi["components"]["parameters"][parameter["$ref"].rsplit("/", 1)[1]]
        return found


def _as_json_schema(value: Any) -> Any:
    """OpenAPI 3.0 says ``nullable``, which JSON Schema does not know."""
    if isinstance(value, list):
        return [_as_json_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    schema = {key: _as_json_schema(inner) for key, inner in value.items() if key != "nullable"}
    return {"anyOf": [schema, {"type": "null"}]} if value.get("nullable") is True else schema


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if "properties" in schema else {}
    return {**closed, **{key: _closed(inner) for key, inner in schema.items()}}


if __name__ == "__main__":
    source, licence = (Path(name).read_text(encoding="utf-8") for name in sys.argv[1:])
    EXTRACT.write_text(json.dumps(extract(json.loads(source), licence)) + "\n", encoding="utf-8")
