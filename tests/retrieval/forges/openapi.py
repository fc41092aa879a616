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

OPERATIONS = (
    "/repos/{owner}/{repo}",
    "/repos/{owner}/{repo}/pulls",
    "/repos/{owner}/{repo}/pulls/{pull_number}/files",
    "/repos/{owner}/{repo}/pulls/{pull_number}/commits",
    "/repos/{owner}/{repo}/pulls/{pull_number}/comments",
    "/repos/{owner}/{repo}/pulls/{pull_number}/reviews",
    "/repos/{owner}/{repo}/issues/{issue_number}/comments",
)


def extract(openapi: dict[str, Any], licence: str) -> dict[str, Any]:
    """The operations, what they refer to, and their examples; without prose and without the schemas' examples."""
    paths = {}
    for path in OPERATIONS:
        operation = openapi["paths"][path]["get"]
        answers = {"200": operation["responses"]["200"]}
        kept = {key: operation[key] for key in ("operationId", "parameters")}
        paths[path] = {"get": _bare({**kept, "responses": answers})}
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
        for parameter in self._openapi["paths"][self.operation(path)]["get"]["parameters"]:
            whole = self._whole(parameter)
            parameters[whole["name"]] = whole
        for name, value in query.items():
            assert parameters.get(name, {}).get("in") == "query", f"{path} takes no parameter {name}"
            schema = parameters[name]["schema"]
            typed = int(value) if schema["type"] == "integer" else value
            Draft202012Validator(_as_json_schema(schema)).validate(typed)

    def check_answer(self, path: str, content: Any) -> None:
        """The answer is one that the forge documents for this path."""
        template = self.operation(path)
        if template not in self._validators:
            answer = self._openapi["paths"][template]["get"]["responses"]["200"]
            schema = _as_json_schema(answer["content"]["application/json"]["schema"])
            self._validators[template] = Draft202012Validator({**self._schema, **schema})
        self._validators[template].validate(content)

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


if __name__ == "__main__":
    source, licence = (Path(name).read_text(encoding="utf-8") for name in sys.argv[1:])
    EXTRACT.write_text(json.dumps(extract(json.loads(source), licence)) + "\n", encoding="utf-8")
