"""Sends notices to the receivers of the worker's settings: webhooks by ourselves, other services by Apprise."""

import asyncio
import functools
import logging
import re
import ssl
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
from temporalio import activity

from activities.gates.unreached import reason_of
from activities.webhook_http import posted, signing_key, trust
from segue.errors import Refused, Unanswered
from segue.gates.webhook_settings import Webhook
from segue.naming import page_of
from segue.notices import CONTENT_TYPE, Notice, Receiver, Service, cloud_event, text, title
from segue.spec.notifications import Event, Notification

THREADS = 4
"""Apprise blocks while it sends. Threads of its own keep a receiver that hangs away from all other work."""
_TYPES = {
    Event.NEEDS_PERSON: "failure", Event.ROLLED_BACK: "failure", Event.REFUSED: "failure",
    Event.AWAITING_APPROVAL: "warning", Event.PAUSED: "warning", Event.ROLLING_BACK: "warning",
    Event.COMPLETED: "success",
}  # fmt: skip
_STATUS = re.compile(r"error=(\d{3})\b")


class Notifier:
    """All receivers of this worker."""

    def __init__(self, receivers: Mapping[str, Receiver], ui: str = "") -> None:
        self._receivers, self._ui = receivers, ui
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="notify")

    def close(self) -> None:
        """Start no more messages of the services."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def refuse(self, notifications: Iterable[Notification]) -> None:
        """Refuse a receiver that is not in the settings, or whose settings are unusable.

        Raises:
            Refused: names the known receivers.
        """
        for index, each in enumerate(notifications):
            field, receiver = f"spec.notifications[{index}].name", self._receivers.get(each.name)
            if receiver is None:
                known = ", ".join(sorted(self._receivers)) or "none so far"
                fix = f"use one from the worker's settings ({known}), or add it to SEGUE_NOTIFICATIONS"
                raise Refused("is not among the worker's receivers", field=field, value=each.name, fix=fix)
            try:
                await self._check(receiver)
            except (OSError, ssl.SSLError, Unanswered) as error:
                fix = f"correct SEGUE_NOTIFICATIONS on the worker: {error}"
                raise Refused("has unusable settings", field=field, value=each.name, fix=fix) from error

    async def _check(self, receiver: Receiver) -> None:
        if isinstance(receiver, Webhook):
            signing_key(receiver)
            trust(receiver)
        else:
            await self._in_thread(_service, receiver.address_file)

    async def send(self, receiver_name: str, notice: Notice) -> None:
        """Send a notice.

        Raises:
            Unanswered: when the receiver did not accept it, without its address.
        """
        receiver = self._receivers.get(receiver_name)
        if receiver is None:
            raise Unanswered(f"the receiver {receiver_name} is not in this worker's settings (SEGUE_NOTIFICATIONS)")
        page = page_of(self._ui, activity.info().workflow_namespace or "default", notice.workflow_id)
        if isinstance(receiver, Webhook):
            await _post(receiver_name, receiver, notice, page)
            return
        problem = await self._in_thread(_notify, receiver, notice, page)
        if problem:
            raise Unanswered(f"the receiver {receiver_name} {problem}")

    async def _in_thread(self, call: Any, *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(call, *given))


async def _post(name: str, webhook: Webhook, notice: Notice, page: str) -> None:
    try:
        async with (
            asyncio.timeout(webhook.timeout_s),
            posted(webhook, cloud_event(notice, page), notice.key, CONTENT_TYPE) as response,
        ):
            status = response.status
    except Unanswered as error:
        raise Unanswered(f"the receiver {name} {error}") from error
    except TimeoutError as error:
        raise Unanswered(f"the receiver {name} did not answer within {webhook.timeout_s:g} s") from error
    except (aiohttp.ClientError, OSError) as error:  # its own text, which would be logged, may hold the address
        raise Unanswered(f"the receiver {name} cannot be reached: {reason_of(error)}") from None
    if not 200 <= status < 300:
        raise Unanswered(f"the receiver {name} answers {status} instead of 2xx")


# --- Apprise, in a thread ---------------------------------------------------------------------------------


class _Statuses(logging.Handler):
    """Keeps the HTTP status of the latest refusal, by thread: Apprise writes it only to its log, beside secrets."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.of_thread: dict[int, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        found = _STATUS.search(record.getMessage())
        if found and record.thread is not None:
            self.of_thread[record.thread] = found[1]


@functools.cache
def _quiet() -> _Statuses:
    """Keep the addresses with their secrets out of the worker's log, at every level."""
    statuses = _Statuses()
    for name in ("apprise", "urllib3", "requests_oauthlib"):
        logger = logging.getLogger(name)
        logger.propagate, logger.handlers = False, [statuses]
    return statuses


def _service(address_file: Path) -> Any:
    """Return the service of the address in this file.

    Raises:
        OSError: when the file cannot be read.
        Unanswered: when it holds no address of a service that Apprise knows.
    """
    _quiet()
    import apprise  # noqa: PLC0415 - a third of a second, and only workers with such a receiver need it

    try:
        address = address_file.read_text("utf-8-sig").strip()
    except UnicodeDecodeError:  # its own text holds a part of the address
        raise Unanswered(f"{address_file} is not UTF-8 text; save it as UTF-8") from None
    service = apprise.Apprise.instantiate(address, asset=apprise.AppriseAsset(app_id="Segue", async_mode=False))
    if service is None:
        raise Unanswered(f"{address_file} does not hold a valid address of Apprise, such as slack://…")
    return service


def _notify(receiver: Service, notice: Notice, page: str) -> str:
    """Send a notice, and return why the service did not accept it; empty if it did."""
    statuses, thread = _quiet(), threading.get_ident()
    statuses.of_thread.pop(thread, None)
    try:
        service = _service(receiver.address_file)
    except OSError as error:
        return f"has an unreadable address_file: {error.strerror}"
    except Unanswered:
        return "has no valid address in its address_file"
    head, body = title(notice, page, receiver.title), text(notice, page, receiver.text)
    try:
        if service.notify(body=body, title=head, notify_type=_TYPES.get(notice.event, "info")):
            return ""
    except Exception as error:  # a plugin's own fault; its text may hold the address
        return f"could not be called: {type(error).__name__}"
    status = statuses.of_thread.get(thread)
    return f"did not accept the message{f' (status {status})' if status else ' in time'}"
