"""Hides what looks like a secret in what servers say, before it is kept where many can read it."""

import re

LINE_END = " ⏎ "
"""Between the lines of a log on one line."""
_MASK = "***"
_NAMED = re.compile(
    r"(?i)\b([\w.-]*(?:passw(?:or)?d|passphrase|token|secret|api[_-]?key|access[_-]?key|private[_-]?key|credentials?"
    r"|authorization)[\w.-]*)(\"?\s*[=:]\s*\"?)(?:(?:bearer|basic)\s+)?[^\s\"',;&]+"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)")
_KNOWN = re.compile(
    r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|xox[abpr]-[\w-]{10,}"
    r"|eyJ[\w-]{10,}\.[\w-]+\.[\w-]*)"
)


def masked(text: str) -> str:
    """Return the text without what looks like a secret: by its name, its form, or as part of an address."""
    text = _NAMED.sub(lambda m: f"{m[1]}{m[2]}{_MASK}", text)
    text = _BEARER.sub(lambda m: f"{m[1]} {_MASK}", text)
    return _KNOWN.sub(_MASK, _IN_ADDRESS.sub(_MASK, text))


def tail(text: str, lines: int = 10, characters: int = 1000) -> str:
    """Return the last lines of a log, bounded and masked."""
    said = [" ".join(line.split()) for line in masked(text).splitlines()]
    last = LINE_END.join([line for line in said if line][-lines:])
    return last if len(last) <= characters else f"...{last[3 - characters :]}"
