"""Passwords on command lines: what the option of a known command says to be one, whatever it looks like.

``mysql -uroot -pPASSWORD``, ``curl -u user:PASSWORD``, ``redis-cli -a PASSWORD`` and the like, as the manuals of these
commands document them, at any place of a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_VALUE = r"[\"']?(?P<secret>(?!-)[^\s\"'`|;&<>\u2026]{4,200})"
_LONGEST = 2_000
_LINE = r"\b[^\n|;]{0,200}?\s"
"""What may stand between a command and its option."""


_END = re.compile(r"[\n|;]")
_FURTHER: dict[re.Pattern[str], re.Pattern[str]] = {}


def _command(words: str, commands: str, option: str) -> tuple[tuple[str, ...], re.Pattern[str]]:
    first = re.compile(rf"(?:\b|(?<=\\n))(?:{commands}){_LINE}(?:{option}){_VALUE}")
    _FURTHER[first] = re.compile(rf"(?<=\s)(?:{option}){_VALUE}")
    return tuple(words.split("|")), first


def further(text: str, found: re.Match[str]) -> Iterator[re.Match[str]]:
    """The same option again in the command whose first one was ``found``; none for other patterns."""
    pattern = _FURTHER.get(found.re)
    if pattern is not None:
        end = _END.search(text, found.end(), found.end() + _LONGEST)
        yield from pattern.finditer(text, found.end(), end.start() if end else found.end() + _LONGEST)


COMMANDS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    _command(" -p", r"mysql\w*|mariadb[\w-]*|mycli", r"-p(?!ort\b|assword\b|rotocol|lugin)"),
    _command("curl", r"curl", r"(?:-u|--user|--proxy-user|-U)[ =]?[\"']?(?P<user>[\w.@%+-]{1,60}):"),
    _command(" -a", r"(?:https?|xh)(?= )", r"-a [\"']?(?P<user>[\w.@%+-]{1,60}):"),  # HTTPie
    _command(" -p", r"sshpass", r"-p ?"),
    _command(" -p", r"mongo(?:sh|dump|restore|export|import|stat)?", r"-p[ =]"),
    _command(" -p", r"(?:docker|podman|buildah|skopeo|nerdctl|helm|az|oc|cf|kubelogin)\b[\w ]{0,20} login", r"-p[ =]"),
    _command(" -a", r"redis-(?:cli|benchmark)", r"-a[ =]?"),
    _command(" -w", r"ldap(?:search|add|modify|delete|whoami|passwd|compare)", r"-w ?"),
    _command(" -p", r"sqlcmd|bcp|isql", r"-P ?"),
    _command(" -p", r"(?:un)?zip", r"-P ?"),
    _command(" -u", r"smbclient", r"-U ?[\"']?(?P<user>[\w.@\\/+-]{1,60})%"),
    _command("htpasswd", r"htpasswd", r"-\w*b\w* (?:\S{1,200} )?[\w.@-]{1,60} "),
    _command("storepass|keypass", r"keytool|jarsigner|apksigner", r"-(?:src|dest)?(?:store|key)pass ?"),
    _command("pass:", r"openssl", r"(?:-pass(?:in|out)? )?pass:"),
    _command("--from-literal", r"(?:kubectl|oc)\b[^\n|;]{0,60}\bsecret\b", r"--from-literal[= ][\"']?[\w.-]{1,60}="),
)
"""What of it stands in the line, in small letters and cheap to look for, and where in it the password is."""
