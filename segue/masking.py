"""Masks what looks like a secret in foreign text, before many can read it.

Each pattern is tried at only one place of a word, so that no text can keep a worker busy.
"""

import re

LINE_END = " ⏎ "
"""Separates the lines of a log that are joined into one."""
MASK = "***"
_NAME = re.compile(r"(?<![\w.-])[\w.-]++")
_SECRET = re.compile(
    r"(?i)passw(?:or)?d|passphrase|token(?!iz)|secret|api[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key"
    r"|credential|authorization"
)
_COUNTED = re.compile(r"(?i)tokens$")
"""Names of numbers of tokens: a number there is why a model server does not start."""
_QUOTE = r"\\{0,3}[\"']"
"""The quote of JSON or of a Python value, also within a quoted text."""
_HELD = (
    rf"(?P<list>[\[(]\s*)?"
    rf"(?:(?P<quote>{_QUOTE})(?P<quoted>[^\n]{{0,4000}}?)(?<!\\)(?P=quote)"
    r"|(?P<value>(?:(?:bearer|basic|token|digest|negotiate|apikey)\s+)?(?:[^\s\"',;&\\]|\\(?![\"']))+))"
)
_VALUE = re.compile(rf"(?i)(?:{_QUOTE})?\s*[=:]\s*{_HELD}")
_OPEN = re.compile(rf"(?i)(?:{_QUOTE})?\s*[=:]\s*{_QUOTE}(?P<value>[^\s\"',;&]+)")
"""A quoted value whose end is missing."""
_ARGUMENT = re.compile(rf"(?i)(?:{_QUOTE})?,?\s+(?!-|{_QUOTE}-){_HELD}")
"""The value of an option of a command line, as text or as a list of texts."""
_LIST_END = re.compile(r"[^\])\n]{0,4000}+(?=[\])])")
_NUMBER = re.compile(r"[\d_.]+[\])}]*")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@:]*:[^\s/]+(?=@)|(?:(?<=http://)|(?<=https://))[^\s/@?#]+(?=@)")
_SIGNED = re.compile(r"(?i)(?<=[?&])((?:x-(?:amz|goog)-)?signature|sig)=[^\s&\"'<>]+")
"""The signature of an address that gives its reader a file."""
_KNOWN = re.compile(
    r"(?<![\w-])(?:A[KS]IA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|gl(?:pat|ptt|rt|dt|cbt|ft|soat|agent|oas)-[\w.-]{16,}|hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}"
    r"|nvapi-[\w-]{20,}|sk-[A-Za-z0-9_-]{16,}|gsk_[A-Za-z0-9]{20,}|AIza[\w-]{30,}|ya29\.[\w-]{20,}"
    r"|dckr_pat_[\w-]{20,}|hvs\.[\w-]{20,}|dapi[0-9a-f]{32}|xox[abeprs]-[\w-]{10,}|xapp-[\w-]{10,}"
    r"|eyJ[\w-]{4,}\.[\w-]+\.[\w-]*)"
)
_HOOK = re.compile(r"(?<=://hooks\.slack\.com/)[^\s\"'<>]+")
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?")


def masked(text: str) -> str:
    """Return the text with what looks like a secret masked: by its name, its form, or as part of an address.

    Half of a character, which no message to Temporal can hold, becomes a question mark.
    """
    text = _without_named(_KEY_BLOCK.sub(MASK, text.encode(errors="replace").decode()))
    text = _BEARER.sub(lambda m: f"{m[1]} {MASK}", text)
    text = _SIGNED.sub(lambda m: f"{m[1]}={MASK}", _HOOK.sub(MASK, text))
    return _KNOWN.sub(MASK, _IN_ADDRESS.sub(MASK, text))


def _without_named(text: str) -> str:
    kept, at = [], 0
    for name in _NAME.finditer(text):
        found = _value_of(name, text) if name.start() >= at and _SECRET.search(name[0]) else None
        if found is not None:
            kept += [text[at : found[0]], MASK]
            at = found[1]
    return "".join((*kept, text[at:]))


def _value_of(name: re.Match[str], text: str) -> tuple[int, int] | None:
    """Return where the value of what is named like a secret begins and ends; None if it has none."""
    value = _VALUE.match(text, name.end()) or _OPEN.match(text, name.end())
    if value is None and name[0].startswith("--"):
        value = _ARGUMENT.match(text, name.end())
    if value is None:
        return None
    part = "quoted" if value.groupdict().get("quoted") is not None else "value"
    if not value[part]:
        return None
    if part == "value" and _COUNTED.search(name[0]) and _NUMBER.fullmatch(value[part]):
        return None
    rest = _LIST_END.match(text, value.end()) if value.groupdict().get("list") else None
    return value.start(part), rest.end() if rest else value.end(part)


def tail(text: str, lines: int = 10, characters: int = 1000) -> str:
    """Return the last lines of a log, bounded and masked."""
    texts = [" ".join(line.split()) for line in masked(text).splitlines()]
    last = LINE_END.join([line for line in texts if line][-lines:])
    return last if len(last) <= characters else f"...{last[3 - characters :]}"
