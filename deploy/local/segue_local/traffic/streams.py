"""Long streaming completions, several at a time."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from segue_local.errors import Refused
from segue_local.traffic.load import Lines, Load, Wrap
from segue_local.traffic.outcomes import Stream, StreamOutcomes

_CLIENT = Path(__file__).with_name("stream_client.py")


class Streams(Load[StreamOutcomes]):
    """``count`` streaming requests at a time to ``{url}/v1/chat/completions``, each with a connection of its own.

    When one ends the next is started. Each asks for ``max_tokens`` tokens (the very first ones for a part of them, so
    that not all end at once) and is whole when it brought them all and ``[DONE]``; with the server's pace of tokens
    that says how long it lasts. ``body`` adds to or replaces fields of the request. ``version_path`` is where each
    event names the version. A stream that brings nothing for ``idle_s``, or lasts longer than ``timeout_s``, is cut.
    """

    name = "streams"

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        count: int = 4,
        max_tokens: int = 100,
        model: str = "model",
        body: dict[str, object] | None = None,
        version_path: str = "system_fingerprint",
        idle_s: float = 10.0,
        timeout_s: float = 60.0,
        longest_s: float = 3600.0,
        wrap: Wrap = list,
    ) -> None:
        """Raises ``Refused`` for values that cannot be used."""
        super().__init__(folder, timeout_s=timeout_s, longest_s=longest_s, wrap=wrap)
        if not url.startswith(("http://", "https://")):
            raise Refused(f"url: {url!r} is no http:// or https:// address")
        if count < 1 or max_tokens < 1:
            raise Refused(f"count: {count} streams of max_tokens: {max_tokens} are none: take 1 or more of each")
        messages = [{"role": "user", "content": "Count."}]
        self._config = {
            "url": f"{url.rstrip('/')}/v1/chat/completions",
            "count": count,
            "body": {"model": model, "messages": messages, "max_tokens": max_tokens, "stream": True, **(body or {})},
            "version_path": version_path,
            "idle_s": idle_s,
            "timeout_s": timeout_s,
            "longest_s": longest_s,
            "lines": str(self._lines),
            "summary": str(self._summary),
        }

    def _command(self) -> list[str]:
        # -P: the folder of the script must not hide modules of the library. It is run by its path, not as a
        # module, since it needs nothing of this package and begins five times sooner without it.
        return [sys.executable, "-P", os.fspath(_CLIENT), json.dumps(self._config)]

    def _outcomes(self, lines: Lines, dropped: int) -> StreamOutcomes:
        streams = (Stream(**{**line, "versions": tuple(line["versions"])}) for line in lines)
        return StreamOutcomes(tuple(sorted(streams, key=lambda stream: stream.at)))
