"""Masks what looks like a secret in foreign text, before many can read it.

Each pattern is tried at only one place of a word, so that no text can keep a worker busy.
"""

import re

LINE_END = " ⏎ "
"""Separates the lines of a log that are joined into one."""
MASK = "***"
_NAME = re.compile(r"(?<![\w.-])[\w.-]++(?=\"?\s*[=:])")
_SECRET = re.compile(
    r"(?i)passw(?:or)?d|passphrase|token|secret|api[_-]?key|access[_-]?key|private[_-]?key|credential|authorization"
)
_VALUE = re.compile(r"(?i)\"?\s*[=:]\s*\"?(?P<value>(?:(?:bearer|basic)\s+)?[^\s\"',;&]+)")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)")
_KNOWN = re.compile(
    r"(?<![\w-])(?:A[KS]IA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}"
    r"|sk-[A-Za-z0-9_-]{16,}|xox[abpr]-[\w-]{10,}|eyJ[\w-]{4,}\.[\w-]+\.[\w-]*)"
)
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?")


def masked(text: str) -> str:
    """Return the text with what looks like a secret masked: by its name, its form, or as part of an address."""
    text = _without_named(_KEY_BLOCK.sub(MASK, text))
    text = _BEARER.sub(lambda m: f"{m[1]} {MASK}", text)
    return _KNOWN.sub(MASK, _IN_ADDRESS.sub(MASK, text))


def _without_named(text: str) -> str:
    kept, at = [], 0
    for name in _NAME.finditer(text):
        value = _VALUE.match(text, name.end()) if name.start() >= at and _SECRET.search(name[0]) else None
        if value is not None:
            kept += [text[at : value.start("value")], MASK]
            at = value.end()
    return "".join((*kept, text[at:]))


def tail(text: str, lines: int = 10, characters: int = 1000) -> str:
    """Return the last lines of a log, bounded and masked."""
    texts = [" ".join(line.split()) for line in masked(text).splitlines()]
    last = LINE_END.join([line for line in texts if line][-lines:])
    return last if len(last) <= characters else f"...{last[3 - characters :]}"
