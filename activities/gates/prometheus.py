"""The only Prometheus client, and the only place that translates its errors.

The worker's settings hold the address and the credentials; a spec only names a provider. Each error is one sentence
that contains no token, and no secret of an address.
"""

import asyncio
import json
import math
import ssl
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from activities.gates.unreached import reason_of
from segue.errors import Unanswered
from segue.gates.asking import Grid

MAX_ANSWER_BYTES = 16 * 2**20
"""More than the largest expected answer: 512 buckets over some hundred intervals, or 12 over ten thousand."""
_SHOWN = 300
_NOT_OF_THE_API = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What reading any other JSON, or none, can raise."""
_NO_REDIRECT = "it was moved, and the worker does not follow redirects; put the new address in its settings"


def _plain_address(url: str) -> str:
    parts = urlsplit(url)
    has_user = parts.username or parts.password or ("@" in url and not parts.hostname)
    if has_user or parts.query or parts.fragment:
        # The message does not repeat the value, which may contain a password.
        raise PydanticCustomError("secret_setting", "contains more than an address; put credentials in files")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise PydanticCustomError("no_address", "is not an address; write http://HOST:PORT or https://...")
    return url.rstrip("/")


class PrometheusSettings(BaseModel):
    """One Prometheus, or a server with its API (Thanos, Mimir, VictoriaMetrics)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(max_length=2048), AfterValidator(_plain_address)]
    bearer_token_file: Path | None = None
    """Read again for each query, because service account tokens are renewed."""
    ca_file: Path | None = None
    """The authority of the server's certificate, read again for each query; the system's authorities by default."""
    timeout_s: float = Field(default=10.0, gt=0, le=60)
    """The time limit of one query, in seconds."""


class Matrix(NamedTuple):
    """A query's answer: by labels (without the metric's name), one value per interval. NaN and gaps are None."""

    series: dict[tuple[tuple[str, str], ...], tuple[float | None, ...]]
    warnings: tuple[str, ...] = ()


class Prometheus:
    """One provider, by the name that specs give it."""

    def __init__(self, name: str, settings: PrometheusSettings) -> None:
        self._name, self._settings = name, settings
        self._session: aiohttp.ClientSession | None = None
        self._trust: tuple[bytes, ssl.SSLContext] | None = None

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def query_range(self, query: str, over: Grid, most_series: int) -> Matrix:
        """Return the answer to a query at the end of each interval.

        Raises:
            Unanswered: if there is no usable answer.
        """
        limit_s = self._settings.timeout_s
        form = {
            "query": query,
            "start": f"{over.first:.3f}",
            "end": f"{over.last:.3f}",
            "step": f"{over.interval_s:.3f}",
            "timeout": f"{limit_s:.3f}",
            # Thanos would leave out stores that do not answer, and the rest would look complete.
            "partial_response": "false",
        }
        body = await self._within("/api/v1/query_range", form)
        return self._read(body, over, most_series)

    async def clock(self) -> float:
        """Return its present time, in seconds since the epoch: the simplest query that shows that it answers.

        Raises:
            Unanswered: if there is no usable answer.
        """
        body = await self._within("/api/v1/query", {"query": "time()"})
        try:
            return float(json.loads(body)["data"]["result"][1])
        except (*_NOT_OF_THE_API, IndexError) as error:
            raise Unanswered(f"provider {self._name}: its answer is not of Prometheus' API") from error

    async def _within(self, path: str, form: dict[str, str]) -> bytes:
        limit_s = self._settings.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._post(path, form)
        except TimeoutError:
            raise Unanswered(f"provider {self._name}: no answer within {limit_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unanswered(f"provider {self._name} cannot be queried: {reason_of(error)}") from error

    async def _post(self, path: str, form: dict[str, str]) -> bytes:
        session = self._open()
        url, headers = self._settings.url + path, self._credentials()
        trusted = self._trusted()
        async with session.post(url, data=form, headers=headers, ssl=trusted, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(2**16):
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise Unanswered(f"provider {self._name}: the answer has over {MAX_ANSWER_BYTES // 2**20} MiB")
            if response.status != 200:
                raise Unanswered(f"provider {self._name}: {_refusal(response.status, bytes(body))}")
            return bytes(body)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32))
        return self._session

    def _trusted(self) -> ssl.SSLContext:
        """Return the authorities that ``ca_file`` has now; the system's without one."""
        file = self._settings.ca_file
        content = file.read_bytes() if file else b""
        if self._trust is None or self._trust[0] != content:
            self._trust = content, ssl.create_default_context(cafile=str(file) if file else None)
        return self._trust[1]

    def _credentials(self) -> dict[str, str]:
        file = self._settings.bearer_token_file
        if file is None:
            return {}
        try:
            token = file.read_text().strip()
        except (OSError, UnicodeError) as error:
            raise Unanswered(f"provider {self._name}: its token file cannot be read: {reason_of(error)}") from None
        if not token.isascii() or not token.isprintable():
            raise Unanswered(f"provider {self._name}: its token file has no token of one line")
        return {"Authorization": f"Bearer {token}"}

    def _read(self, body: bytes, over: Grid, most_series: int) -> Matrix:
        try:
            return read_matrix(json.loads(body), over, most_series)
        except Unanswered as error:
            raise Unanswered(f"provider {self._name}: {error}") from None
        except _NOT_OF_THE_API as error:
            raise Unanswered(f"provider {self._name}: its answer is not of Prometheus' API") from error


def read_matrix(answer: Any, over: Grid, most_series: int) -> Matrix:
    """Read the answer of a range query.

    Raises:
        Unanswered: for more series than expected, and for anything but a matrix.
    """
    data = answer["data"]
    if answer["status"] != "success" or data["resultType"] != "matrix":
        raise Unanswered(f"it answers with {str(data['resultType'])[:40]} instead of a matrix")
    found = data["result"]
    if len(found) > most_series:
        labels = ", ".join(sorted({name for each in found[:100] for name in each["metric"]})[:8]) or "no labels"
        fix = "sum them up, or select one" if most_series == 1 else "select fewer"
        raise Unanswered(f"the query returns {len(found)} series (by {labels}), and {most_series} can be judged; {fix}")
    if any(each.get("histograms") for each in found):
        fix = "take a number of them, such as histogram_quantile or histogram_count"
        raise Unanswered(f"the query returns native histograms, which cannot be judged; {fix}")
    series = {_labels(each["metric"]): _on_grid(each.get("values", []), over) for each in found}
    return Matrix(series, tuple(str(text)[:_SHOWN] for text in answer.get("warnings", [])[:5]))


def _labels(metric: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in metric.items() if name != "__name__"))


def _on_grid(samples: list[tuple[float, str]], over: Grid) -> tuple[float | None, ...]:
    values: list[float | None] = [None] * over.size
    for at, text in samples:
        index, value = round((float(at) - over.first) / over.interval_s), float(text)
        if 0 <= index < over.size and math.isfinite(value):
            values[index] = value
    return tuple(values)


def _refusal(status: int, body: bytes) -> str:
    if 300 <= status < 400:
        return f"HTTP {status}: {_NO_REDIRECT}"
    try:
        reason = json.loads(body)["error"]
    except _NOT_OF_THE_API:
        return f"HTTP {status}"
    return f"HTTP {status}: {str(reason)[:_SHOWN]}"
