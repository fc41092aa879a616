"""The project's own command, run before and after a replacement: it must not get worse.

The command is the main branch's, never that of the change; what it runs, such as a Makefile, may be the change's, which
is why it runs in a sandbox.
"""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from inhouse_retrieval import InhouseError, Repository
from inhouse_server.review.change import ReviewedFile
from inhouse_server.review.finding import Finding
from inhouse_server.review.proof import applied
from inhouse_server.review.sandbox import FOLDER, Ran, Sandbox, find_sandbox
from inhouse_server.review.trusted import settings_on_main
from inhouse_server.settings import ReviewSettings
from inhouse_server.settings_file import FILE_NAME

WORSE = "the check of inhouse.toml got worse"
NOT_RUN = "the check of inhouse.toml could not be run"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Trusted:
    """The check that may be run.

    Attributes:
        settings: where it stands; ``None`` when there is none.
        warning: why what ``inhouse.toml`` says here is not it; ``""`` when it is.
    """

    settings: ReviewSettings | None
    warning: str = ""


def trusted_check(repository: Repository, here: ReviewSettings) -> Trusted:
    """The check of the main branch; of the work tree only where git does not know ``inhouse.toml`` at all.

    Args:
        here: the settings of the work tree, which may be those of the change under review.

    Raises:
        InhouseError: ``inhouse.toml`` of the main branch is not one.
    """
    main, text = settings_on_main(repository)
    if text:
        try:
            found = tomllib.loads(text.decode("utf-8")).get("review", {})
            settings = ReviewSettings.model_validate(found)
        except (ValueError, ValidationError) as error:
            raise InhouseError(
                f"{FILE_NAME} of {main} cannot be read, so its check is not known.", "Mend it on that branch."
            ) from error
        if settings.check == here.check:
            return Trusted(settings if settings.check else None)
        return Trusted(
            settings if settings.check else None,
            f"The check of {FILE_NAME} here is not that of {main}; "
            + ("that of the branch is run." if settings.check else "none is run."),
        )
    known = repository.git("ls-files", "--", FILE_NAME) + repository.git("ls-tree", "HEAD", "--", FILE_NAME)
    if here.check and known:
        where = f"{main} has none" if main else "there is no main branch to take it from"
        return Trusted(None, f"The check of {FILE_NAME} is not run: {where}.")
    return Trusted(here if here.check else None)


def open_check(repository: Repository, settings: ReviewSettings, tree: Path) -> Check:
    """The check over ``tree``, a copy of the repository as the change leaves it.

    Raises:
        InhouseError: no sandbox can be made, or a folder of ``check_reads`` is not there.
    """
    assert settings.check
    reads: list[tuple[Path, str]] = []
    for name in settings.check_reads:
        place = repository.root / Path(name).expanduser()
        if not place.is_dir():
            raise InhouseError(f"{place} of check_reads is no folder.", "Correct check_reads in inhouse.toml.")
        inside = str(place) if Path(name).expanduser().is_absolute() else f"{FOLDER}/{Path(name)}"
        reads.append((place.resolve(), inside))
    return Check(settings.check, find_sandbox(settings.check_seconds, settings.check_memory_mb * 2**20, reads), tree)


class Check:
    """A command that is run on the change, and on the change with one replacement applied."""

    def __init__(self, command: str, sandbox: Sandbox, tree: Path) -> None:
        self._command = command
        self._sandbox = sandbox
        self._tree = tree

    @cached_property
    def _before(self) -> Ran:
        with tempfile.TemporaryDirectory(prefix="inhouse-check-") as nothing:
            return self._sandbox.run(self._command, self._tree, Path(nothing))

    def refusal(self, file: ReviewedFile, finding: Finding) -> str:
        """Why the replacement of ``finding`` is not shown; ``""`` when nothing speaks against it."""
        assert finding.replacement is not None
        before = self._before
        text = applied(file.new_text, finding.start_line, finding.end_line, finding.replacement)
        if before.code is None or text is None:
            return NOT_RUN if before.code is None else "it does not apply"
        with tempfile.TemporaryDirectory(prefix="inhouse-check-") as folder:
            changed = Path(folder, file.path)
            changed.parent.mkdir(parents=True, exist_ok=True)
            there = self._tree / file.path
            changed.write_bytes(text.encode("utf-8", "surrogatepass"))
            changed.chmod(there.stat().st_mode & 0o777)
            after = self._sandbox.run(self._command, self._tree, Path(folder))
        if after.code is None and not after.why.startswith("it "):
            return NOT_RUN
        return WORSE if is_worse(before, after) else ""


def is_worse(before: Ran, after: Ran) -> bool:
    """Whether ``after`` is worse than ``before``, which ended by itself.

    What passed must pass. What failed must pass, or fail with the same exit code and say nothing new: no line, numbers
    aside (places and times move), more often than before.
    """
    if after.code == 0:
        return False
    if before.code == 0 or after.code != before.code:
        return True
    return bool(_lines(after.output) - _lines(before.output))


def _lines(output: str) -> Counter[str]:
    return Counter(_NUMBER.sub("0", line.rstrip()) for line in output.splitlines() if line.strip())
