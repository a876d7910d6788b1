"""Single requests at a constant rate, sent by k6."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from segue_local.build import K6, Progress, ensure_built
from segue_local.errors import Refused
from segue_local.traffic.load import Lines, Load, Wrap
from segue_local.traffic.outcomes import Outcomes, Request

_SCRIPT = Path(__file__).with_name("k6.js")


class Traffic(Load[Outcomes]):
    """Sends ``rate`` requests a second to ``url``, whether or not earlier ones were answered.

    Each uses its own connection unless ``keep_alive``. With ``body`` it is a POST, else a GET.
    ``version_path`` is the path of the server's version in the JSON answer, such as ``model_version``.
    A request fails after ``timeout_s``. Building k6 takes two minutes the first time.
    """

    name = "k6"

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        rate: int = 50,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        version_path: str = "model_version",
        keep_alive: bool = False,
        timeout_s: float = 10.0,
        longest_s: float = 3600.0,
        wrap: Wrap = list,
        on_progress: Progress | None = None,
    ) -> None:
        """Raises ``Refused`` for values that cannot be used."""
        super().__init__(folder, timeout_s=timeout_s, longest_s=longest_s, wrap=wrap)
        if not url.startswith(("http://", "https://")):
            raise Refused(f"url: {url!r} is not an http:// or https:// address")
        if rate < 1:
            raise Refused(f"rate: {rate} requests a second is too low: use 1 or more")
        self._config = {
            "url": url,
            "method": "GET" if body is None else "POST",
            "body": None if body is None else json.dumps(body),
            "headers": {"Content-Type": "application/json", **(headers or {})},
            "rate": rate,
            "version_path": version_path,
            "keep_alive": keep_alive,
            "timeout_s": timeout_s,
            "longest_s": longest_s,
            # The maximum in flight when no request is answered, so that the rate stays constant even then.
            "users": math.ceil(rate * timeout_s) + rate,
            "summary": str(self._summary),
        }
        self._on_progress = on_progress

    def _command(self) -> list[str]:
        return [
            str(ensure_built(self._on_progress, [K6])["k6"]),
            "run",
            "--no-usage-report",
            "--quiet",
            "--no-color",
            "--address=",  # no control API: two loads at once would compete for its port
            "--log-format=raw",
            f"--console-output={self._lines}",
            f"--env=SEGUE_LOAD={json.dumps(self._config)}",
            str(_SCRIPT),
        ]

    def _outcomes(self, lines: Lines, dropped: int) -> Outcomes:
        requests = (Request(**line) for line in lines)
        return Outcomes(tuple(sorted(requests, key=lambda request: request.at)), dropped)
