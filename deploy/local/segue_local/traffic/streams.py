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
    """Keeps ``count`` streaming requests open to ``{url}/v1/chat/completions``, each on its own connection.

    When one ends, the next starts. Each requests ``max_tokens`` tokens (the very first ones fewer, so that not all end
    at once); with the server's token rate, this sets its duration. A stream is complete when it received all tokens and
    ``[DONE]``. ``body`` adds or replaces fields of the request. ``version_path`` is the path of the version in each
    event. A stream that receives nothing for ``idle_s``, or lasts longer than ``timeout_s``, is cut.
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
            raise Refused(f"url: {url!r} is not an http:// or https:// address")
        if count < 1 or max_tokens < 1:
            raise Refused(f"count: {count} streams of max_tokens: {max_tokens} are too few: use 1 or more of each")
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
        # -P: the folder of the script must not hide library modules. The script runs by its path, not as a
        # module, because it needs nothing of this package and starts five times faster without it.
        return [sys.executable, "-P", os.fspath(_CLIENT), json.dumps(self._config)]

    def _outcomes(self, lines: Lines, dropped: int) -> StreamOutcomes:
        streams = (Stream(**{**line, "versions": tuple(line["versions"])}) for line in lines)
        return StreamOutcomes(tuple(sorted(streams, key=lambda stream: stream.at)))
