"""Masks what looks like a secret in texts that others wrote, before they are recorded where many can read them."""

import re

MASK = "***"
MAX_LENGTH = 8192
"""Of a text that is looked at: some patterns take longer than a text is long."""
_PLAIN_NUMBER = re.compile(r"\d+(\.\d+)?(ms|s|%)?")
"""``time per output token: 12.5ms`` is no secret."""

_NAMED = re.compile(
    r"""(?ix)
    (?P<name>(?:password|passwd|passphrase|token|secret|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)
        ["']?\s*[=:]\s*["']?)
    (?P<value>[^\s"',;&]+)"""
)
_BARE = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?)[^\s\"',;]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"(://[^/\s:@]*:)[^/\s@]+@"), rf"\1{MASK}@"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), MASK),  # a JSON Web Token
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), MASK),
    (re.compile(r"\b(?:hf|ghp|gho|ghs|glpat|sk|xox[abp])[_-][\w-]{16,}"), MASK),
)


def masked(text: str) -> str:
    """Return the text, cut to ``MAX_LENGTH``, with the values of what looks like secrets replaced by ``***``."""
    text = text[:MAX_LENGTH]
    for pattern, replacement in _BARE:
        text = pattern.sub(replacement, text)
    return _NAMED.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    is_count = "token" in found["name"].lower() and _PLAIN_NUMBER.fullmatch(found["value"])
    return found[0] if is_count else f"{found['name']}{MASK}"
