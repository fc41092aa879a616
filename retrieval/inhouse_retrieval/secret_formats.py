"""Formats of keys and tokens that can be told by their look alone, as their issuers document them.

Each has a word that any text with such a secret holds, so that a text without it is not searched at all. A pattern
names the part that is taken out ``secret``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of secret.

    Attributes:
        kind: what stands in its place.
        words: one of them stands, as it is, in the line that holds such a secret.
        over_lines: the secret goes over many lines.
    """

    kind: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]
    over_lines: bool = False


def _format(kind: str, words: str, secret: str, before: str = r"(?<![A-Za-z0-9])", after: str = "") -> Format:
    return Format(kind, tuple(words.split()), re.compile(f"{before}(?P<secret>{secret}){after}"))


_END = r"(?![A-Za-z0-9])"
_URL_SAFE_END = r"(?![A-Za-z0-9_-])"

_PRIVATE_KEYS = (
    Format(
        "private key",
        ("-----BEGIN ",),
        re.compile(
            r"-----BEGIN (?P<label>[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----"
            r"(?P<secret>.{16,12000}?)-----END (?P=label)-----",
            re.S,
        ),
        over_lines=True,
    ),
    # Cut short, as at the end of a patch or a message: what follows the first line and looks like its body.
    Format(
        "private key",
        ("-----BEGIN ",),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?P<secret>(?:(?:\\n|[\s+>\"'-])*[A-Za-z0-9+/=]{16,})+)"
        ),
        over_lines=True,
    ),
    Format(
        "private key",
        ("-----END ",),
        re.compile(
            r"(?P<secret>(?:^[ \t+>-]?[ \t]*[A-Za-z0-9+/=]{16,76}[ \t]*\n){1,400})"
            r"[ \t+>-]?[ \t]*-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----",
            re.M,
        ),
        over_lines=True,
    ),
    Format(
        "private key",
        ("Private-Lines:",),
        re.compile(
            r"Private-Lines: \d+(?P<secret>(?:(?:\\[nr]|[\s+>-]){1,6}[A-Za-z0-9+/=]{4,64}(?=\\[nr]|\s|$)){1,400})"
        ),
        over_lines=True,  # PuTTY
    ),
    _format("age key", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
)
_CLOUD = (
    _format("AWS access key", "AKIA ASIA ABIA ACCA", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}", after=_END),
    _format("AWS Bedrock key", "ABSK", r"ABSK[A-Za-z0-9+/]{109,269}={0,2}"),
    _format("Azure client secret", "Q~", r"[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34}"),
    _format(
        "Azure storage key", "AccountKey= SharedAccessKey=", r"[A-Za-z0-9+/]{40,90}={0,2}", "(?:Account|Access)Key="
    ),
    _format("Azure signature", "sig=", r"[A-Za-z0-9%/+]{40,90}(?:=|%3D)", r"[?&]sig="),
    _format("Google API key", "AIza", r"AIza[A-Za-z0-9_-]{35}", after=_URL_SAFE_END),
    _format("Google OAuth secret", "GOCSPX-", r"GOCSPX-[A-Za-z0-9_-]{28}"),
    _format("Google OAuth token", "ya29.", r"ya29\.[A-Za-z0-9_-]{30,}"),
    _format("DigitalOcean token", "_v1_", r"do[opr]_v1_[a-f0-9]{64}", after=_END),
    _format("Alibaba access key", "LTAI", r"LTAI[A-Za-z0-9]{20}", after=_END),
    _format("Heroku key", "HRKU-", r"HRKU-[A-Za-z0-9_-]{36,}"),
    _format("Cloudflare origin key", "v1.0-", r"v1\.0-[a-f0-9]{24}-[a-f0-9]{146}"),
    _format("Fly.io token", "FlyV1 fo1_", r"FlyV1 fm\d[rat]?_[A-Za-z0-9+/=,_]{60,}|fo1_[A-Za-z0-9_-]{43}"),
    _format("Netlify token", "nfp_", r"nfp_[A-Za-z0-9]{36,}"),
    _format("Supabase key", "sbp_ sb_secret_", r"sbp_[a-f0-9]{40}|sb_secret_[A-Za-z0-9_-]{20,}"),
    _format("PlanetScale password", "pscale_", r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.-]{32,}"),
    _format("Databricks token", "dapi", r"dapi[a-f0-9]{32}(?:-\d)?", after=_END),
    _format("Tailscale key", "tskey-", r"tskey-[a-z]+-[A-Za-z0-9]{6,}-[A-Za-z0-9]{20,}"),
    _format("Vault token", "hvs. hvb. hvr.", r"hv[sbr]\.[A-Za-z0-9_-]{24,}"),
    _format("Terraform token", ".atlasv1.", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}"),
    _format("Pulumi token", "pul-", r"pul-[a-f0-9]{40}", after=_END),
    _format("Doppler token", "dp.", r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,44}"),
    _format("1Password token", "ops_eyJ", r"ops_eyJ[A-Za-z0-9+/_-]{80,}={0,3}"),
)
_FORGES = (
    _format("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{36,251}", after=_END),
    _format("GitHub token", "github_pat_", r"github_pat_[A-Za-z0-9_]{60,255}"),
    _format(
        "GitLab token",
        "gl",
        r"gl(?:pat|ptt|dt|rt|rtr|cbt|agent|oas|soat|ft|ffct|imt|wt)-[A-Za-z0-9_.-]{20,}|GR1348941[A-Za-z0-9_-]{20}",
    ),
    _format("GitLab token", "GR1348941", r"GR1348941[A-Za-z0-9_-]{20}"),
    _format("Bitbucket password", "ATBB", r"ATBB[A-Za-z0-9]{32}", after=_END),
    _format("Atlassian token", "ATATT3 ATCTT3", r"AT[AC]TT3[A-Za-z0-9_=-]{60,}"),
    _format("Linear key", "lin_", r"lin_(?:api|oauth)_[A-Za-z0-9]{32,64}"),
)
_CHAT = (
    _format(
        "Slack token", "xox xapp-", r"xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{20,}|xoxe\.xox[bp]-\S{40,}"
    ),
    _format(
        "Slack webhook",
        "hooks.slack.com/",
        r"(?:services|workflows|triggers)/[A-Za-z0-9+/]{40,}",
        r"hooks\.slack\.com/",
    ),
    # Nearly every line has a dot, so what stands before is looked at second: the search then skips to M, N or O.
    _format(
        "Discord token",
        ".",
        r"[MNO](?<![A-Za-z0-9].)[A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}",
        before="",
    ),
    _format("Discord webhook", "/api/webhooks/", r"\d{17,20}/[A-Za-z0-9_-]{60,}", r"/api/webhooks/"),
    _format("Telegram token", ":A", r"\d{8,10}:A[A-Za-z0-9_-]{34}", after=_URL_SAFE_END),
    _format("Teams webhook", ".webhook.office.com/", r"webhookb2/[^\s\"'<>]{60,}", r"\.webhook\.office\.com/"),
    _format("Twilio key", "SK", r"SK[0-9a-f]{32}", after=_END),
    _format("SendGrid key", "SG.", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    _format("Mailgun key", "key-", r"key-[a-f0-9]{32}", after=_END),
    _format("Mailchimp key", "-us", r"[a-f0-9]{32}-us\d{1,2}", after=_END),
    _format("Brevo key", "xkeysib-", r"xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}"),
)
_PAYMENT = (
    _format(
        "Stripe key", "k_live_ k_test_ whsec_", r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,}"
    ),
    _format("Square token", "sq0", r"sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,43}"),
    _format("Braintree token", "access_token$", r"access_token\$(?:production|sandbox)\$[a-z0-9]{16}\$[a-f0-9]{32}"),
    _format("Shopify token", "shp", r"shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}", after=_END),
    _format(
        "Plaid token",
        "access-",
        r"access-(?:sandbox|development|production)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    ),
    _format("Flutterwave key", "FLWSECK", r"FLWSECK(?:_TEST)?-[A-Za-z0-9-]{14,}-X"),
)
_REGISTRIES = (
    _format("npm token", "npm_", r"npm_[A-Za-z0-9]{36}", after=_END),
    _format("PyPI token", "pypi-AgE", r"pypi-AgE[A-Za-z0-9_-]{50,}"),
    _format("RubyGems key", "rubygems_", r"rubygems_[a-f0-9]{48}", after=_END),
    _format("crates.io token", "cio", r"cio[A-Za-z0-9]{32}", after=_END),
    _format("NuGet key", "oy2", r"oy2[a-z0-9]{43}", after=_END),
    _format("Docker token", "dckr_", r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}"),
    _format("Clojars token", "CLOJARS_", r"CLOJARS_[a-z0-9]{60}", after=_END),
    _format("Artifactory key", "AKCp cmVmdGtu", r"AKCp[A-Za-z0-9]{60,}|cmVmdGtu[A-Za-z0-9]{50,}"),
)
_SERVICES = (
    _format("OpenAI key", "sk-", r"sk-(?:proj-|svcacct-|admin-)[A-Za-z0-9_-]{32,}|sk-[A-Za-z0-9]{32,}"),
    _format("Anthropic key", "sk-ant-", r"sk-ant-[A-Za-z0-9_-]{32,}"),
    _format("Hugging Face token", "hf_ api_org_", r"hf_[A-Za-z0-9]{34,}|api_org_[A-Za-z0-9]{34,}", after=_END),
    _format("Groq key", "gsk_", r"gsk_[A-Za-z0-9]{52}", after=_END),
    _format("Replicate token", "r8_", r"r8_[A-Za-z0-9]{37}", after=_END),
    _format("Perplexity key", "pplx-", r"pplx-[A-Za-z0-9]{48}", after=_END),
    _format("xAI key", "xai-", r"xai-[A-Za-z0-9]{70,}"),
    _format("Grafana token", "glsa_ glc_", r"glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}|glc_[A-Za-z0-9+/]{32,}={0,2}"),
    _format("New Relic key", "NRAK- NRII- NRAA-", r"NR(?:AK|II|AA)-[A-Za-z0-9_-]{27,}"),
    _format("Sentry token", "sntry", r"sntrys_eyJ[A-Za-z0-9+/=_-]{40,}|sntryu_[a-f0-9]{64}"),
    _format("Dynatrace token", "dt0", r"dt0[a-z]\d{2}\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    _format("Notion token", "ntn_ secret_", r"ntn_[A-Za-z0-9]{40,50}|secret_[A-Za-z0-9]{43}", after=_END),
    _format("Airtable token", "pat", r"pat[A-Za-z0-9]{14}\.[a-f0-9]{64}"),
    _format("Figma token", "figd_", r"figd_[A-Za-z0-9_-]{36,}"),
    _format("Postman key", "PMAK-", r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    _format("Dropbox token", "sl.", r"sl\.(?:u\.)?[A-Za-z0-9_-]{120,}"),
    _format("Mapbox token", "sk.eyJ", r"sk\.eyJ[A-Za-z0-9_-]{30,}\.[A-Za-z0-9_-]{20,}"),
    _format("Contentful token", "CFPAT-", r"CFPAT-[A-Za-z0-9_-]{43}"),
    _format("JSON web token", "eyJ", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    _format("password hash", "$", r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}|\$argon2id?\$v=\d+\$[^\s\"']{40,}", before=""),
    _format("password hash", "$apr1$ $5$ $6$", r"\$(?:apr1|5|6)\$[./A-Za-z0-9]{4,16}\$[./A-Za-z0-9]{22,86}", before=""),
)

FORMATS: tuple[Format, ...] = (
    *_PRIVATE_KEYS, *_CLOUD, *_FORGES, *_CHAT, *_PAYMENT, *_REGISTRIES, *_SERVICES
)  # fmt: skip
