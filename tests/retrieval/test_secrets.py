"""Secrets are found, in files and in what people write; ordinary code is left alone.

(Tokens are joined here: no scanner should see one.)
"""

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


PASSWORD = "Xk29sLq8" + "vTn4wZp7"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("set DB_PASSWORD=", " in your .env"),
        ("docker run -e DB_PASSWORD=", " shop"),
        ('docker run -e "DB_PASSWORD=', '" shop'),
        ("PGPASSWORD=", " psql -h db"),
        ("STRIPE_SECRET=", " npm start"),
        ("try `DB_PASSWORD=", "`, then restart"),
        ("SHOP-7 SESSION_SECRET=", ""),
        ("(DB_PASS=", ")"),
        ("ENV DB_PASSWORD ", ""),
        ("helm upgrade shop --set db.password=", ",db.user=shop"),
        ("my password is: ", ""),
        ("the password for the staging db is ", "."),
        ("*Password:* ", ""),
        ("**Password**: `", "`"),
        ("pw: ", ", thanks"),
        ("Here is the password:\n\n  ", "\n\nCheers"),
        ("the API key has been changed to: ", ""),
        ("Das Passwort lautet ", "."),
        ("login: deploy / ", ""),
        ("user deploy, password ", ""),
        ("| DB_PASSWORD | ", " | staging |"),
        ("<td>DB_PASSWORD</td><td>", "</td>"),
        ("mysql -uroot -p", " shop"),
        ("run curl -u deploy:", " https://ci.acme.dev to see it"),
        ("sshpass -p ", " ssh root@db"),
        ("redis-cli -a ", " ping"),
        ("shopctl login --password ", ", then"),
        ("shopctl login --password='", "'"),
        ("kubectl create secret generic shop --from-literal=door=", ""),
        ("see https://deploy:", "@ci.acme.dev/job"),
    ],
)
def test_what_people_write(before: str, after: str) -> None:
    text, found = redact(f"Hi,\n{before}{PASSWORD}{after}\n")
    [secret] = found
    assert text == f"Hi,\n{before}[REDACTED {secret.kind}]{after}\n"
    assert redact(text) == (text, ())


@pytest.mark.parametrize("password", ["hunter2", "tr0ub4dor&3", "Winter24!", "Xk2.9sLq8!", "Tn4&amp;wZp7x"])
def test_a_password_that_is_said_need_not_look_drawn(password: str) -> None:
    assert password[:7] not in redact(f"By the way, the password is {password}, see you.")[0]


@pytest.mark.parametrize(
    "line",
    [
        'password = request.form["password"]',
        "if token == expected:",
        "if token == expected123a:",
        "self.token=token",
        "connect(user=user, password=password2, token=sha256(seed), key=self.tokens2[0])",
        "connect(password=None)",
        "def login(password: str, token: Uint8Array, secret: Base64String) -> None:",
        "PASSWORD=$DB_PASSWORD docker compose up",
        "PASSWORD=${DB_PASSWORD1:-x} docker compose up",
        "PASSWORD=<your password> docker compose up",
        "password=changeme123 or password=abc123def456 or password=password1",
        '"password": "Password", "passwordHint": "Password: 8-20 characters"',
        "The password is SHA256-hashed, the token is base64url-encoded.",
        "A password has 8 characters or more; the token is a JWT and is read from vault2.",
        "Set DB_PASSWORD, API_KEY and SESSION_SECRET before you start.",
        "max_tokens=4096, token_rate=1.5e-06, token_ttl=1h30m15s, token_expires=2024-01-02T03:04:05Z",
        "secretName: shop-tls-5f7b9c, password_file=/run/secrets/db1x",
        "tokenizer=Qwen2.5-7B-Instruct",
        "image: acme/secret-manager:v1.2.3-a1b2c3d",
        "--token-color-1: #a1b2c3d4;",
        "self.pad_token_id = self.config.t2u_pad_token_id; f(per_token_cast_to_fp8=per_token_cast_to_fp8)",
        "unless the caller did pass `id2label/label2id` in kwargs",
        '"token2wav_config": Qwen2_5OmniToken2WavConfig,',
        '    verify_token="eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9...",',
        "see https://login.acme.dev/oauth2/v2.0/token?page=1 and https://acme.dev:8080/a@b",
        "mysql -u root -p shop",
        "mysql -uroot -proot shop",
        'mysql -uroot -p"$MYSQL_PASSWORD" shop',
        "docker run -p3306:3306 mysql:8",
        'curl -u "$USER:$PASSWORD" https://ci.acme.dev',
        "curl -u admin:admin https://ci.acme.dev",
        "echo $TOKEN | docker login --password-stdin registry.acme.dev",
        "2001:0db8:85a3:0000:0000:8a2e:0370:7334 16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
    ],
)
def test_code_that_names_secrets_is_left_alone(line: str) -> None:
    assert redact(line) == (line, ())


def test_a_manifest_that_lost_its_indentation() -> None:
    value = "YUszeDlQ" + "cUxtMld6N1J0WWI="
    manifest = f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: shop-database\ntype: Opaque\ndata:\n  door: {value}\n"
    for text in (manifest.replace("  ", ""), " ".join(manifest.split()), manifest.replace("\n", "<br/>\n")):
        clean, found = redact(f"See:\n{text} and then apply it.\n")
        assert value not in clean and len(found) == 1
        assert "shop-database" in clean and "and then apply it." in clean


def test_other_manifests_are_left_alone() -> None:
    text = (
        "kind: Secret\nmetadata:\n  name: shop\n---\nkind: ConfigMap\ndata:\n  level: information\n"
        "  template: c2hvcC10ZW1wbGF0ZQ==\n"
    )
    assert redact(text) == (text, ())


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


@pytest.mark.parametrize(
    "line",
    [
        "kubectl create secret generic x --from-literal=user={} --from-literal=db={}",
        "openssl pkcs12 -passin pass:{} -passout pass:{} -in a.p12",
        "keytool -genkey -storepass {} -keypass {}",
        "curl -U proxy:{} -u bob:{} https://shop.example",
    ],
)
def test_every_password_of_a_command_line_is_taken_out(line: str) -> None:
    said = redact(line.format("Xk29vLq8Tz1", "battery9staple"))[0]
    assert said.count("[REDACTED password or token]") == 2 and "Xk29" not in said and "battery" not in said


def test_a_configmap_is_no_secret() -> None:
    line = "kubectl create configmap x --from-literal=log_level=debug"
    assert redact(line)[0] == line


@pytest.mark.parametrize("sign", ["+", "-", " "])
def test_a_patch_keeps_its_signs_where_the_secret_stands_below_its_name(sign: str) -> None:
    patch = f"{sign}# the database password is:\n{sign}Xk29vLq8Tz#w\n"
    assert redact(patch)[0] == f"{sign}# the database password is:\n{sign}[REDACTED password or token]\n"
