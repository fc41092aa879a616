"""Requests to GitHub and GitLab over HTTP that obey the forge's limits. What the readers of pull requests ask is never
asked again once it was answered.

The token goes to the configured address only. A redirect or a link to a next page that points to another scheme, host
or port is refused, not followed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Literal, Protocol, Self
from urllib.parse import quote

import httpx

from inhouse_retrieval.errors import InhouseError
from inhouse_retrieval.progress import Progress, no_progress
from inhouse_retrieval.pull_requests.pull_request import PullRequest
from inhouse_retrieval.pull_requests.store import Answer, PullRequestStore
from inhouse_retrieval.secrets import redact

Kind = Literal["github", "gitlab"]

DEFAULT_URL: Mapping[Kind, str] = {"github": "https://api.github.com", "gitlab": "https://gitlab.com/api/v4"}
MAX_RETRIES = 5
"""Of one request, whatever it failed for. Doubling from one second, they span half a minute of a forge that is down;
doubling from a minute, half an hour of a secondary limit."""
MAX_WAIT = 2 * 3600.0
"""Seconds. GitHub's primary limit is for an hour; a forge that asks for longer is not waited for."""
_HEADERS: Mapping[Kind, Mapping[str, str]] = {
    "github": {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"},
    "gitlab": {"Accept": "application/json"},
}
_PAGE = 100
_MAX_REDIRECTS = 5
_TOO_MUCH = frozenset({410, 413, 422})
"""Answers by which a forge says that it will not give a part of a pull request, such as a diff beyond its limits."""
_TIMEOUT = httpx.Timeout(60, connect=15)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Reduce = Callable[[Any], Any]
"""What is kept of an item that a forge sent; raises ``KeyError``, ``TypeError`` or ``ValueError`` where it is not as
documented."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Forge:
    """Where the pull requests are.

    Attributes:
        url: base address of the API; empty for the forge's own cloud.
        project: ``owner/name``, or GitLab's path or number of the project.
        token: sent to that address only, and never stored, logged or shown.
        token_source: where the token comes from, as errors name it.

    Raises:
        InhouseError: the address or the token could not be used, or the token would go over the network in clear.
    """

    kind: Kind
    project: str
    url: str = ""
    token: str | None = field(default=None, repr=False)
    token_source: str = "the token"

    def __post_init__(self) -> None:
        address = self.address
        if address.scheme not in ("http", "https") or not address.host or address.userinfo or address.query:
            raise InhouseError(
                f"The address of the forge's API is not one: {self.url!r}.",
                f"Set [forge] url to one such as {DEFAULT_URL[self.kind]}, without a user or password in it.",
            )
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise InhouseError(f"{self.token_source} does not hold a token.", "Give it the token alone, on one line.")
        if self.token is not None and address.scheme == "http" and address.host not in _LOOPBACK:
            raise InhouseError(
                f"{self.token_source} would go to {address.host} unencrypted.",
                "Use an https:// address in [forge] url.",
            )

    @property
    def address(self) -> httpx.URL:
        """Base address of the API."""
        try:
            return httpx.URL((self.url or DEFAULT_URL[self.kind]).rstrip("/"))
        except httpx.InvalidURL:
            return httpx.URL("")

    @property
    def route(self) -> str:
        """Of the project, below the address.

        Raises:
            InhouseError: no project of this forge can be named so.
        """
        if self.kind == "gitlab":
            return f"/projects/{quote(self.project.strip('/'), safe='')}"
        if re.fullmatch(r"[\w-][\w.-]*/[\w.-]*[\w-][\w.-]*", self.project, re.ASCII) is None:
            raise InhouseError(
                f"{self.project!r} is not a project on GitHub.", "Set [forge] project to OWNER/NAME in inhouse.toml."
            )
        return f"/repos/{self.project}"


@dataclass(frozen=True, slots=True)
class Listed:
    """A pull request as a listing has it.

    Attributes:
        author: the author's number at the forge, which tells their own comments from the others'.
        commit: the commit that landed it.
        head: the last commit inside it.
    """

    number: int
    title: str
    description: str
    url: str
    author: int | None
    author_role: str
    created_at: datetime
    updated_at: datetime
    merged_at: datetime | None
    commit: str
    head: str

    @property
    def version(self) -> str:
        """Names this state of the pull request; anything said about it later gives another."""
        return self.updated_at.isoformat()


class ForgeReader(Protocol):
    """What :func:`~inhouse_retrieval.pull_requests.sync.sync_pull_requests` asks of a forge."""

    def listing(self, version: str) -> AsyncIterator[Sequence[Listed]]:
        """Pages of closed pull requests of the default branch, the last changed first."""

    async def details(self, listed: Listed) -> tuple[PullRequest, tuple[str, ...]]:
        """All of one pull request, and which parts of it the forge would not give."""


class ForgeRefusal(InhouseError):
    """The forge answers, and the answer is no: with ``status`` of HTTP."""

    def __init__(self, problem: str, remedy: str = "", status: int = 0) -> None:
        super().__init__(problem, remedy)
        self.status = status


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, and how to let it pass; tests bring their own."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class ForgeClient:
    """Requests to a forge that obey its limits.

    Args:
        command: of `inhouse`'s commands the one that asks, as errors name it.

    Attributes:
        requests: how many were sent.
        waited: seconds spent waiting for the forge.
    """

    def __init__(
        self, forge: Forge, command: str, progress: Progress = no_progress, clock: Clock | None = None
    ) -> None:
        self._forge = forge
        self._command = command
        self._progress = progress
        self._clock = clock or Clock()
        self._free_at = 0.0
        self.requests = 0
        self.waited = 0.0
        sent = {"User-Agent": "inhouse", **_HEADERS[forge.kind]}
        if forge.token is not None:
            sent["Authorization"] = f"Bearer {forge.token}"
        self._client = httpx.AsyncClient(headers=sent, timeout=_TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def read(self, route: str) -> Any:
        """What there is at ``route`` now.

        Raises:
            ForgeRefusal: the forge will not give it.
            InhouseError: the forge cannot be reached, or does not answer as its API documents.
        """
        return self._content(await self._get(f"{self._forge.address}{route}"))

    async def read_all(self, route: str) -> list[Any]:
        """All items of the listing at ``route`` now, over its pages; raises as :meth:`read` does."""
        items: list[Any] = []
        url: str | None = f"{self._forge.address}{route}?per_page={_PAGE}"
        seen: set[str] = set()
        while url is not None and url not in seen:
            seen.add(url)
            response = await self._get(url)
            content = self._content(response)
            if not isinstance(content, list):
                raise self.not_documented(url)
            items += content
            following = response.links.get("next", {}).get("url")
            url = str(self._own(response, following)) if following else None
        return items

    async def write(self, route: str, content: Mapping[str, Any]) -> Any:
        """POST ``content``; returns what the forge made of it, ``None`` where it says that in no JSON.

        It is sent again only where the forge cannot have taken it: it was not reached, or answered that a limit is met.

        Raises:
            ForgeRefusal: the forge does not take it.
            InhouseError: the forge cannot be reached, or whether it took it is not known.
        """
        response = await self._patiently("POST", httpx.URL(f"{self._forge.address}{route}"), {}, content)
        if response.status_code not in (200, 201):
            raise self._refusal(response)
        try:
            return response.json()
        except ValueError:
            return None  # it took it; what it says of it matters less

    def _content(self, response: httpx.Response) -> Any:
        if response.status_code != 200:
            raise self._refusal(response)
        try:
            return response.json()
        except ValueError as error:
            raise self.not_documented(_place(response.url)) from error

    def not_documented(self, what: str) -> InhouseError:
        """The forge said something else than its documentation does."""
        return InhouseError(
            f"The answer to {what} is not what the {_NAME[self._forge.kind]} API documents.",
            "Check [forge] kind and url in inhouse.toml: the address must be that of the API.",
        )

    async def _get(self, url: str, etag: str | None = None) -> httpx.Response:
        address = httpx.URL(url)
        for _ in range(_MAX_REDIRECTS):
            response = await self._patiently("GET", address, {"If-None-Match": etag} if etag else {})
            if not response.has_redirect_location:
                return response
            address = self._own(response, response.headers["location"])
        raise InhouseError(f"{url} redirects again and again.", "Check [forge] url and project in inhouse.toml.")

    def _own(self, response: httpx.Response, named: str) -> httpx.URL:
        """The address that an answer names, when it is at the forge itself."""
        try:
            address = response.url.join(named)
        except httpx.InvalidURL as error:
            raise self.not_documented(_place(response.url)) from error
        if _origin(address) != _origin(self._forge.address):
            raise InhouseError(
                f"The forge at {self._forge.address.host} points to another address, {_place(address)}, and the token "
                "must not go there.",
                "If that is the forge's right address, set it as [forge] url in inhouse.toml.",
            )
        return address

    async def _patiently(
        self, method: str, address: httpx.URL, headers: Mapping[str, str], content: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """One request, repeated while the forge is busy: five times at most. What may have arrived is not repeated
        when it writes."""
        for attempt in range(MAX_RETRIES + 1):
            await self._wait(self._free_at - self._clock.now(), "the forge's rate limit", 0)
            self.requests += 1
            try:
                response = await self._client.request(method, address, headers=headers, json=content)
            except httpx.HTTPError as error:
                problem = f"{_place(address)} cannot be reached ({type(error).__name__})."
                if content is not None and not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
                    raise self._uncertain(address, type(error).__name__) from error
                why, delay = "the forge to be reached", 2.0**attempt
            else:
                limited = _is_limited(response)
                self._note_limit(response)
                if not limited and response.status_code < 500:
                    return response
                if content is not None and not limited:
                    raise self._uncertain(address, f"status {response.status_code}")
                problem = f"{_place(address)} keeps answering with status {response.status_code}."
                why = "the forge's rate limit" if limited else "the forge to recover"
                delay = self._delay(response, 60.0 * 2**attempt if limited else 2.0**attempt)
            if attempt < MAX_RETRIES:
                await self._wait(delay, why, attempt + 1)
        raise InhouseError(problem, f"Run '{self._command}' again later; it goes on where it stopped.")

    def _uncertain(self, address: httpx.URL, why: str) -> InhouseError:
        return InhouseError(
            f"Whether {_place(address)} took what was sent to it is not known ({why}).",
            f"Run '{self._command}' again: it looks first, and repeats nothing that is there.",
        )

    def _note_limit(self, response: httpx.Response) -> None:
        """When the primary limit is used up, nothing more is asked before it is filled again."""
        reset = _number(response, "reset")
        if _number(response, "remaining") == 0 and reset is not None:
            self._free_at = max(self._free_at, reset + 1.0)

    def _delay(self, response: httpx.Response, otherwise: float) -> float:
        told = response.headers.get("retry-after", "")
        if (seconds := _whole(told)) is not None:
            return float(seconds)
        if told:
            try:
                return parsedate_to_datetime(told).timestamp() - self._clock.now()
            except ValueError:
                return otherwise
        return self._free_at - self._clock.now() if self._free_at > self._clock.now() else otherwise

    async def _wait(self, seconds: float, why: str, attempt: int) -> None:
        if seconds <= 0:
            return
        if seconds > MAX_WAIT:
            raise InhouseError(
                f"The forge asks to wait for {seconds / 3600:.0f} hours, which is too long.",
                f"Run '{self._command}' again after that; it goes on where it stopped.",
            )
        until = f"{datetime.fromtimestamp(self._clock.now() + seconds, UTC):%H:%M:%S} UTC"
        _log.info("waiting %.0f s for %s, after attempt %d", seconds, why, attempt)
        stage, whole = f"waiting for {why} until {until}", math.ceil(seconds)
        for second in range(whole):
            self._progress(stage, second, whole)
            await self._clock.sleep(min(1.0, seconds - second))
        self._progress(stage, whole, whole)
        self.waited += seconds

    def _refusal(self, response: httpx.Response) -> ForgeRefusal:
        source, name = self._forge.token_source, _NAME[self._forge.kind]
        where = f"{self._forge.project} at {self._forge.address.host}"
        has_token = self._forge.token is not None
        writes = response.request.method == "POST"
        refused = partial(ForgeRefusal, status=response.status_code)
        match response.status_code:
            case 401 if has_token:
                return refused(f"{name} does not accept the token of {source}.", "Make a new token and set it.")
            case 401 | 404 if not has_token:
                return refused(
                    f"There is no project {where}, or it wants a token.",
                    f"Check [forge] project in inhouse.toml, or set {source} to a token that may read it.",
                )
            case 404:
                return refused(
                    f"There is no project {where}, or the token of {source} may not see it.",
                    "Check [forge] project in inhouse.toml, and what the token may read.",
                )
            case 403 if writes:
                return refused(
                    f"{name} forbids to write to {where}.",
                    f"Give the token of {source} the right to write to pull requests; one of a fork's job has none.",
                )
            case 403:
                return refused(
                    f"{name} forbids to read {where}.",
                    f"Give the token of {source} the right to read the repository's pull requests.",
                )
        return refused(
            f"{_place(response.url)} answered with status {response.status_code}.",
            "Check [forge] in inhouse.toml: kind, url and project.",
        )


class ForgeConnection(ForgeClient):
    """One sync's connection to a forge, whose answers are kept in ``store``.

    Attributes:
        not_modified: how many of the requests the forge answered with "not modified".
    """

    def __init__(
        self, forge: Forge, store: PullRequestStore, progress: Progress = no_progress, clock: Clock | None = None
    ) -> None:
        super().__init__(forge, "inhouse sync", progress, clock)
        self._store = store
        self.not_modified = 0

    async def pages(
        self, route: str, version: str, reduce: Reduce, query: Mapping[str, str] | None = None, may_lack: bool = False
    ) -> AsyncIterator[Answer]:
        """What the forge says about a listing, page by page; about a single object, a page with that alone.

        Args:
            version: an answer that was kept for it is not asked for again.
            reduce: an item to the JSON value that is kept of it, which is redacted then; ``None`` leaves it out.
            query: of a listing; ``None`` for a single object.
            may_lack: the forge may have too much of this to give any; the page is then empty and ``missing``.

        Raises:
            InhouseError: the forge refuses, cannot be reached, or does not answer as its API documents.
        """
        asked = "" if query is None else f"?{httpx.QueryParams({**query, 'per_page': str(_PAGE)})}"
        url: str | None = f"{self._forge.address}{route}{asked}"
        seen: set[str] = set()
        while url is not None and url not in seen:
            seen.add(url)
            answer = self._store.recall(url)
            if answer is None or answer.version != version:
                answer = await self._ask(url, answer, version, reduce, may_lack)
                self._store.keep(url, answer)
            yield answer
            url = answer.next_url

    async def part(self, route: str, version: str, reduce: Reduce) -> tuple[list[Any], bool]:
        """All items of a listing that belongs to one pull request, and whether the forge would not give them."""
        pages = [page async for page in self.pages(route, version, reduce, {}, may_lack=True)]
        return [item for page in pages for item in page.items], any(page.missing for page in pages)

    async def _ask(self, url: str, known: Answer | None, version: str, reduce: Reduce, may_lack: bool) -> Answer:
        response = await self._get(url, known.etag if known else None)
        if response.status_code == 304 and known is not None:
            self.not_modified += 1
            return Answer(version, known.etag, known.next_url, known.missing, known.items)
        if response.status_code in _TOO_MUCH and may_lack:
            return Answer(version, None, None, True, [])
        if response.status_code != 200:
            raise self._refusal(response)
        try:
            content = response.json()
            found = content if isinstance(content, list) else [content]
            items = [cleaned(item) for item in map(reduce, found) if item is not None]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self.not_documented(url) from error
        following = response.links.get("next", {}).get("url")
        next_url = str(self._own(response, following)) if following else None
        # When a full last page gets a successor, the page itself may be "not modified".
        may_grow = next_url is None and len(found) >= _PAGE
        etag = response.headers.get("etag", "")
        return Answer(version, etag if etag.isascii() and not may_grow else None, next_url, False, items)


_NAME: Mapping[Kind, str] = {"github": "GitHub", "gitlab": "GitLab"}


def default_branch(project: Any) -> str:
    """The branch that the project's pull requests land on, as both forges tell it."""
    branch = project["default_branch"]
    if not isinstance(branch, str):
        raise ValueError("a project without a default branch")
    return branch


def cleaned(value: Any) -> Any:
    """A JSON value as it may be kept: secrets redacted in every text, line ends as ``\\n``, no broken characters."""
    if isinstance(value, str):
        return redact(value.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\0", ""))[0]
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, dict):
        return {key: cleaned(item) for key, item in value.items()}
    return value


def _origin(address: httpx.URL) -> tuple[str, str, int | None]:
    return address.scheme, address.host, address.port or {"http": 80, "https": 443}.get(address.scheme)


def _place(address: httpx.URL) -> str:
    """The address without user, password, query and fragment, which may hold secrets."""
    return str(address.copy_with(userinfo=b"", query=None, fragment=None))


def _is_limited(response: httpx.Response) -> bool:
    """Whether a rate limit was met. GitHub says so with 403, too, and does not always name the limit in a header:
    https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api."""
    if response.status_code == 429:
        return True
    return response.status_code == 403 and (
        "retry-after" in response.headers
        or _number(response, "remaining") == 0
        or "rate limit" in response.text[:2000].lower()
    )


def _number(response: httpx.Response, name: str) -> int | None:
    """GitHub's ``x-ratelimit-NAME`` or GitLab's ``RateLimit-NAME``."""
    return _whole(response.headers.get(f"x-ratelimit-{name}") or response.headers.get(f"ratelimit-{name}") or "")


def _whole(told: str) -> int | None:
    """A whole number of a length that can be a time."""
    return int(told) if told.isascii() and told.isdigit() and len(told) < 16 else None
