"""A secret of each kind, drawn at random, in a line where it would stand. None is written here: no scanner sees one."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
BASE32 = string.ascii_uppercase + "234567"


@dataclass(frozen=True)
class Planted:
    """A secret of ``kind``, and the text that it stands in.

    Attributes:
        pieces: of each, no part may be found again: the secret, or the lines of its random body.
    """

    kind: str
    text: str
    pieces: tuple[str, ...]


class _Draw:
    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def __call__(self, count: int, alphabet: str = ALNUM) -> str:
        """Characters of which one at least is a digit and one a letter, as nearly all real ones have them."""
        while True:
            drawn = "".join(self._random.choices(alphabet, k=count))
            if any(map(str.isdigit, drawn)) and any(map(str.isalpha, drawn)):
                return drawn

    def uuid(self) -> str:
        return "-".join(self(count, HEX) for count in (8, 4, 4, 4, 12))

    def digits(self, count: int) -> str:
        return "".join(self._random.choices("123456789", k=count))


_TOKENS: dict[str, Callable[[_Draw], str]] = {
    "AWS access key id": lambda draw: "AK" + "IA" + draw(16, BASE32),
    "AWS session key id": lambda draw: "AS" + "IA" + draw(16, BASE32),
    "AWS Bedrock key": lambda draw: "AB" + "SK" + draw(128),
    "Azure client secret": lambda draw: draw(3) + "8Q" + "~" + draw(34),
    "Google API key": lambda draw: "AI" + "za" + draw(35),
    "Google OAuth secret": lambda draw: "GOC" + "SPX-" + draw(28),
    "Google OAuth token": lambda draw: "ya" + "29." + draw(60),
    "DigitalOcean token": lambda draw: "dop" + "_v1_" + draw(64, HEX),
    "Alibaba key": lambda draw: "LT" + "AI" + draw(20),
    "Heroku key": lambda draw: "HR" + "KU-" + "AA" + draw(58),
    "Cloudflare origin key": lambda draw: "v1" + ".0-" + draw(24, HEX) + "-" + draw(146, HEX),
    "Fly token": lambda draw: "fo" + "1_" + draw(43),
    "Netlify token": lambda draw: "nf" + "p_" + draw(36),
    "Supabase token": lambda draw: "sb" + "p_" + draw(40, HEX),
    "PlanetScale password": lambda draw: "psc" + "ale_pw_" + draw(43),
    "Databricks token": lambda draw: "da" + "pi" + draw(32, HEX),
    "Tailscale key": lambda draw: "ts" + "key-auth-" + draw(12) + "-" + draw(32),
    "Vault token": lambda draw: "hv" + "s." + draw(95),
    "Terraform token": lambda draw: draw(14) + ".atl" + "asv1." + draw(67),
    "Pulumi token": lambda draw: "pu" + "l-" + draw(40, HEX),
    "Doppler token": lambda draw: "dp" + ".pt." + draw(43),
    "GitHub personal token": lambda draw: "gh" + "p_" + draw(36),
    "GitHub app token": lambda draw: "gh" + "s_" + draw(36),
    "GitHub fine-grained token": lambda draw: "github" + "_pat_" + draw(22) + "_" + draw(59),
    "GitLab token": lambda draw: "gl" + "pat-" + draw(20),
    "GitLab runner token": lambda draw: "gl" + "rt-" + draw(20),
    "Bitbucket password": lambda draw: "AT" + "BB" + draw(32),
    "Atlassian token": lambda draw: "AT" + "ATT3" + draw(186),
    "Linear key": lambda draw: "lin" + "_api_" + draw(40),
    "Slack bot token": lambda draw: "xo" + "xb-" + draw.digits(12) + "-" + draw.digits(12) + "-" + draw(24),
    "Slack app token": lambda draw: "xa" + "pp-1-" + draw(11) + "-" + draw.digits(13) + "-" + draw(64, HEX),
    "Slack webhook": lambda draw: "https://hooks.sl" + "ack.com/services/T" + draw(8) + "/B" + draw(8) + "/" + draw(24),
    "Discord token": lambda draw: "M" + draw(23) + "." + draw(6) + "." + draw(38),
    "Discord webhook": lambda draw: "https://discord.com/api/web" + "hooks/" + draw.digits(18) + "/" + draw(68),
    "Telegram token": lambda draw: draw.digits(10) + ":A" + "A" + draw(33),
    "Teams webhook": lambda draw: "https://acme.web" + "hook.office.com/webhookb2/" + draw.uuid() + "@" + draw.uuid(),
    "Twilio key": lambda draw: "S" + "K" + draw(32, HEX),
    "SendGrid key": lambda draw: "S" + "G." + draw(22) + "." + draw(43),
    "Mailgun key": lambda draw: "ke" + "y-" + draw(32, HEX),
    "Mailchimp key": lambda draw: draw(32, HEX) + "-u" + "s12",
    "Brevo key": lambda draw: "xkey" + "sib-" + draw(64, HEX) + "-" + draw(16),
    "Stripe secret key": lambda draw: "sk" + "_live_" + draw(24),
    "Stripe webhook secret": lambda draw: "wh" + "sec_" + draw(32),
    "Square token": lambda draw: "sq" + "0atp-" + draw(22),
    "Braintree token": lambda draw: "access" + "_token$production$" + draw(16, HEX) + "$" + draw(32, HEX),
    "Shopify token": lambda draw: "sh" + "pat_" + draw(32, HEX),
    "Plaid token": lambda draw: "access" + "-production-" + draw.uuid(),
    "Flutterwave key": lambda draw: "FLW" + "SECK-" + draw(32) + "-X",
    "npm token": lambda draw: "np" + "m_" + draw(36),
    "PyPI token": lambda draw: "py" + "pi-AgE" + "IcHlwaS5vcmc" + draw(60),
    "RubyGems key": lambda draw: "ruby" + "gems_" + draw(48, HEX),
    "crates.io token": lambda draw: "ci" + "o" + draw(32),
    "NuGet key": lambda draw: "oy" + "2" + draw(43, string.ascii_lowercase + string.digits),
    "Docker token": lambda draw: "dc" + "kr_pat_" + draw(27),
    "Clojars token": lambda draw: "CLO" + "JARS_" + draw(60, HEX),
    "Artifactory key": lambda draw: "AK" + "Cp" + draw(69),
    "OpenAI key": lambda draw: "sk" + "-proj-" + draw(48),
    "Anthropic key": lambda draw: "sk" + "-ant-api03-" + draw(93),
    "Hugging Face token": lambda draw: "h" + "f_" + draw(34),
    "Groq key": lambda draw: "gs" + "k_" + draw(52),
    "Replicate token": lambda draw: "r" + "8_" + draw(37),
    "Perplexity key": lambda draw: "pp" + "lx-" + draw(48),
    "xAI key": lambda draw: "xa" + "i-" + draw(80),
    "Grafana token": lambda draw: "gl" + "sa_" + draw(32) + "_" + draw(8, HEX),
    "New Relic key": lambda draw: "NR" + "AK-" + draw(27, BASE32),
    "Sentry token": lambda draw: "snt" + "ryu_" + draw(64, HEX),
    "Dynatrace token": lambda draw: "dt" + "0c01." + draw(24, BASE32) + "." + draw(64, BASE32),
    "Notion token": lambda draw: "nt" + "n_" + draw(46),
    "Airtable token": lambda draw: "pa" + "t" + draw(14) + "." + draw(64, HEX),
    "Figma token": lambda draw: "fi" + "gd_" + draw(40),
    "Postman key": lambda draw: "PM" + "AK-" + draw(24, HEX) + "-" + draw(34, HEX),
    "Dropbox token": lambda draw: "s" + "l." + draw(136),
    "Mapbox token": lambda draw: "s" + "k.eyJ" + draw(60) + "." + draw(22),
    "Contentful token": lambda draw: "CF" + "PAT-" + draw(43),
    "JSON web token": lambda draw: "ey" + "J" + draw(20) + ".ey" + "J" + draw(40) + "." + draw(43),
    "bcrypt hash": lambda draw: "$2" + "b$12$" + draw(53),
    "htpasswd hash": lambda draw: "$ap" + "r1$" + draw(8) + "$" + draw(22),
    "age key": lambda draw: "AGE-SECRET" + "-KEY-1" + draw(58, BASE32),
}
_LINES: dict[str, tuple[str, Callable[[_Draw], str]]] = {
    "AWS secret key": ("aws_secret_access_key = {}", lambda draw: draw(40)),
    "Azure storage key": ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey={};", lambda draw: draw(86) + "=="),
    "Azure signature": ("https://shop.blob.core.windows.net/a?sv=2024&sig={}", lambda draw: draw(43) + "%3D"),
    "connection string": ("postgres://shop:{}@db.internal:5432/shop", lambda draw: draw(12)),
    "basic auth in an address": ("git clone https://deploy:{}@git.acme.dev/shop.git", lambda draw: draw(20)),
    "ADO connection string": ("Server=db;User Id=shop;Password={};Encrypt=true", lambda draw: draw(14)),
    "assignment in code": ("const dbPassword = '{}';", lambda draw: draw(14)),
    "assignment in JSON": ('{{"clientSecret": "{}"}}', lambda draw: draw(32)),
    "call with a name": ("define('DB_PASSWORD', '{}');", lambda draw: draw(16)),
    "line of .env": ("SESSION_SECRET={}", lambda draw: draw(18)),
    "line of a properties file": ("spring.datasource.password={}", lambda draw: draw(11) + "!"),
    "line of YAML": ("  smtp_password: {}", lambda draw: draw(16)),
    "option of a command": ("shopctl login --password {}", lambda draw: draw(14)),
    "curl user": ("curl -s -u deploy:{} https://ci.acme.dev/job", lambda draw: draw(20)),
    "bearer header": ("Authorization: Bearer {}", lambda draw: draw(32)),
    "basic header": ("Authorization: Basic {}", lambda draw: base64.b64encode(draw(21).encode()).decode()),
    "query of an address": ("https://api.acme.dev/v1/orders?api_key={}&page=2", lambda draw: draw(24)),
    "one-time password seed": ("otpauth://totp/Shop:ada?secret={}&issuer=Shop", lambda draw: draw(32, BASE32)),
    "session cookie": ("Cookie: theme=dark; sessionid={}", lambda draw: draw(32)),
    "Docker login": ('{{"auths": {{"r.acme.dev": {{"auth": "{}"}}}}}}', lambda draw: draw(28)),
    "element of XML": ("<password>{}</password>", lambda draw: draw(16)),
    "setting of .NET": ('<add key="ApiSecret" value="{}" />', lambda draw: draw(24)),
    "line of .netrc": ("machine git.acme.dev login deploy password {}", lambda draw: draw(16)),
    "line of .pgpass": ("db.internal:5432:shop:app:{}", lambda draw: draw(16)),
    "npm login": ("//registry.acme.dev/:_authToken={}", lambda draw: draw.uuid()),
    "variable for a message": ("set DB_PASSWORD={} in your .env", lambda draw: draw(16)),
    "variable of a container": ("docker run -e DB_PASSWORD={} --rm shop", lambda draw: draw(16)),
    "variable of a command": ("PGPASSWORD={} psql -h db.internal", lambda draw: draw(14)),
    "variable in JavaScript": ("STRIPE_SECRET={} npm start", lambda draw: draw(20)),
    "variable of an image": ("ENV REGISTRY_TOKEN {}", lambda draw: "Qz7" + draw(20)),
    "property of Java": ("java -Dspring.datasource.password={} -jar shop.jar", lambda draw: draw(16)),
    "value of a chart": ("helm upgrade shop --set db.password={},db.user=shop", lambda draw: draw(16)),
    "password of mysql": ("mysql -uroot -p{} shop", lambda draw: draw(10)),
    "password of mysqldump": ("mysqldump -u root -p'{}' shop", lambda draw: draw(10)),
    "password of ssh": ("sshpass -p {} ssh root@db.internal", lambda draw: draw(10)),
    "password of Redis": ("redis-cli -h cache -a {} ping", lambda draw: draw(16)),
    "password of a registry": ("docker login -u deploy -p {} registry.acme.dev", lambda draw: draw(16)),
    "secret of kubectl": ("kubectl create secret generic shop --from-literal=door={}", lambda draw: draw(16)),
    "quoted option": ("shopctl login --password='{}'", lambda draw: draw(14)),
    "cell of a table": ("| DB_PASSWORD | {} | staging |", lambda draw: draw(16)),
    "bold name": ("**Password:** {}", lambda draw: draw(12)),
    "name and code": ("Password: `{}`", lambda draw: draw(12)),
    "API key that is told": ("the API key for staging is {}", lambda draw: draw(24)),
    "token that was changed": ("the deploy token has been changed to: {}", lambda draw: draw(24)),
    "password after a colon": ("my password is: {}", lambda draw: draw(12)),
    "password in German": ("Das Passwort lautet {}", lambda draw: draw(12)),
    "user and password": ("login: deploy / {}", lambda draw: "Qz7" + draw(12)),
    "said in a message": ("By the way, the password is {} until Friday.", lambda draw: draw(12)),
}  # fmt: skip


def _private_key(label: str, draw: _Draw) -> Planted:
    body = [draw(64) for _ in range(8)]
    dashes = "-" * 5
    text = "\n".join([f"{dashes}BEGIN {label}{dashes}", *body, f"{dashes}END {label}{dashes}"])
    return Planted(label.lower(), text, tuple(body))


SENTENCES = (
    "Hi all,\n{} works for me, please rotate it on Monday.\nThanks",
    "I tried {} and it fails.",
    "Try `{}`, then restart.",
    "It worked before ({}).",
    "> {}\nDone, see above.",
    "- first: {}\n- then wait",
    "SHOP-7 {}",
)
"""What people write around something that they copied into chat, mail or a ticket."""


def planted_secrets(seed: str = "1") -> list[Planted]:
    """One of each kind; the same seed draws the same."""
    draw = _Draw(seed)
    planted = [_private_key(f"{name}PRIVATE KEY", draw) for name in ("", "RSA ", "EC ", "OPENSSH ")]
    planted.append(_private_key("PGP PRIVATE KEY BLOCK", draw))
    for kind, make in _TOKENS.items():
        secret = make(draw)
        planted.append(Planted(kind, f"see {secret} in the vault", (secret,)))
    for kind, (line, make) in _LINES.items():
        secret = make(draw)
        planted.append(Planted(kind, line.format(secret), (secret,)))
    putty = [draw(64) for _ in range(4)]
    planted.append(Planted("PuTTY key", "\n".join(["Private-Lines: 4", *putty, "Private-MAC: 0"]), tuple(putty)))
    value = base64.b64encode(draw(18).encode()).decode()
    manifest = f"---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: shop\ndata:\n  door: {value}\n---\n"
    planted.append(Planted("Kubernetes secret", manifest, (value,)))
    return planted


def fragments(planted: Planted) -> set[str]:
    """Parts of the secret that are long enough to be nowhere by chance, in small letters."""
    found: set[str] = set()
    for piece in planted.pieces:
        found.add(piece.lower())
        words = "".join(letter if letter.isalnum() else " " for letter in piece.lower()).split()
        found |= {word for word in words if len(word) >= 10 and any(map(str.isdigit, word)) and "webhook" not in word}
    return found
