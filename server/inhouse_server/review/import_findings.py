"""Imports of a change that the house spells another way: from another module, under another name, in another form."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from inhouse_server.review.change import Change, ReviewedFile
from inhouse_server.review.conventions import Conventions, Usual
from inhouse_server.review.finding import Finding, Precedent, Severity
from inhouse_server.review.import_forms import written_imports
from inhouse_server.review.imports import Import, imports, is_defined_by, with_module
from inhouse_server.review.proof import prove

_ONE_NAME = re.compile(
    r"""^\s*(?:from\s+\S+\s+import\s+\w+
        |import\s+(?:type\s+)?(?:\{\s*[\w$]+\s*,?\s*\}|[\w$]+)\s+from\s+.+
        |import\s+(?:(?:static|struct|class|enum|protocol|typealias|func|let|var)\s+)?[\w.]+
        |(?:import\s+)?(?:\w+\s+)?["`][^"`]+["`]
        |(?:pub\s+)?use\s+[\w:]+
        |use\s+(?:function\s+|const\s+)?[\w\\]+
        |(?:global\s+)?using\s+\w+\s*=\s*[\w.]+)\s*;?\s*$""",
    re.X,
)
"""An import statement of one line and one name: its module can be exchanged without touching another name."""
_MOST_PROVEN = 100
"""Replacements that are worked out for one change; each starts git once."""


@dataclass(slots=True)
class _Found:
    """What was found so far, and why replacements were dropped, by reason."""

    findings: list[Finding] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    def add(
        self, file: ReviewedFile, at: int, severity: Severity, message: str, usual: Usual, key: str,
        number: int = 0, replacement: str | None = None,
    ) -> None:  # fmt: skip
        """A finding at line ``at``.

        Args:
            number: the line that ``replacement`` stands in place of.
        """
        if replacement is not None and len(self.findings) < _MOST_PROVEN:
            replacement, refused = prove(file, number, number, replacement + "\n")
            if refused is not None:
                self.dropped[refused] = self.dropped.get(refused, 0) + 1
                replacement = None
        else:
            replacement = None
        self.findings.append(
            Finding(
                file.path, at, at, severity, "import-spelling", message, file.shown(at, at), replacement,
                usual_places(usual, "imports it the usual way"), score=usual.count / (usual.of + 1), key=key,
            )
        )  # fmt: skip


def import_findings(change: Change, conventions: Conventions) -> tuple[list[Finding], dict[str, int]]:
    """Imports that the house spells another way, and why replacements were dropped, by reason."""
    found = _Found()
    gone = [file.former for file in change.files if file.status in ("removed", "renamed")]
    for file in change.files:
        if added := {number for hunk in file.hunks for number in hunk.added}:
            _modules_and_aliases(file, added, gone, conventions, found)
            _forms(file, added, conventions, found)
    return found.findings, found.dropped


def _modules_and_aliases(
    file: ReviewedFile, added: set[int], gone: list[str], conventions: Conventions, findings: _Found
) -> None:
    for found in imports(file.path, file.new_text):
        if not {found.line, found.named} & added:
            continue
        at = found.line if found.line in added else found.named
        other = conventions.usual_import(file.path, found)
        # What the change takes away nobody can import any more.
        if other is not None and not any(is_defined_by(former, other[0].spelling) for former in gone):
            usual, written = other
            message = (
                f"`{found.name}` is imported from `{written or usual.spelling}` in {usual.count} of {usual.of} places "
                f"here, and from `{found.module}` in this line."
            )
            replacement = _from_module(file, found, written) if written is not None and at == found.line else None
            key = f"{found.name} from {found.module}"
            findings.add(file, at, "warning", message, usual, key, found.line, replacement)
        elif (usual_name := conventions.usual_alias(file.path, found, file.new_text)) is not None:
            what = found.module if found.of_module else found.name
            message = (
                f"`{what}` is imported {_called(usual_name.spelling)} in {usual_name.count} of {usual_name.of} places "
                f"here, and {_called(found.alias)} in this line."
            )
            findings.add(file, at, "info", message, usual_name, f"{what} as {found.alias}")


def _from_module(file: ReviewedFile, found: Import, module: str) -> str | None:
    """The line with the import from ``module``; ``None`` where that would move another name as well."""
    line = file.lines[found.line - 1]
    if not _ONE_NAME.match(line):
        return None
    column = found.at - (file.new_text.rfind("\n", 0, found.at) + 1)
    return with_module(file.path, line, replace(found, at=column), module)


def _called(alias: str) -> str:
    if alias == ".":
        return "with a dot"
    return f"as `{alias}`" if alias else "by its own name"


def _forms(file: ReviewedFile, added: set[int], conventions: Conventions, findings: _Found) -> None:
    for written in written_imports(file.path, file.new_text):
        form = conventions.form(file.path, written) if written.line in added else None
        usual = conventions.usual_form(file.path, file.new_text, written, form) if form is not None else None
        if form is None or usual is None:
            continue
        message = (
            f"`{form.subject}` is {usual[0].spelling} in {usual[0].count} of {usual[0].of} files here, and "
            f"{form.form} in this line."
        )
        replacement = None
        if usual[1] is not None and "\n" not in written.written:
            line = file.lines[written.line - 1]
            column = written.at - (file.new_text.rfind("\n", 0, written.at) + 1)
            replacement = line[:column] + usual[1] + line[column + len(written.written) :]
        findings.add(
            file, written.line, "info", message, usual[0], f"{form.subject} {form.form}", written.line, replacement
        )


def usual_places(usual: Usual, note: str) -> tuple[Precedent, ...]:
    """Where the house's spelling stands."""
    return tuple(Precedent(path, line, line, note) for path, line in usual.places)
