"""Asks webhooks. A spec names one from the worker's settings; the worker calls no other address."""

import asyncio
import ssl
from collections.abc import Mapping

import aiohttp

from activities.gates.base import GateContext
from activities.gates.unreached import reason_of
from activities.webhook_http import posted, signing_key, trust
from segue.errors import Refused, Unanswered
from segue.gates.question import Answer, Question, question_of, read_answer, unanswered
from segue.gates.verdict import Verdict
from segue.gates.webhook_settings import Webhook
from segue.spec.own_gates import OwnGate, WebhookGate

MAX_ANSWER_BYTES = 65_536


class WebhookAsker:
    """Asks the webhooks of the worker's settings."""

    def __init__(self, webhooks: Mapping[str, Webhook]) -> None:
        self._webhooks = webhooks

    def refuse(self, gate: WebhookGate, field: str) -> None:
        """Refuse a webhook that is not in the settings, or whose settings are unusable.

        Raises:
            Refused: names the known webhooks.
        """
        webhook = self._webhooks.get(gate.name)
        if webhook is None:
            known = ", ".join(sorted(self._webhooks)) or "none so far"
            fix = f"use one from the worker's settings ({known}), or add it to SEGUE_WEBHOOKS"
            raise Refused("is not among the worker's webhooks", field=f"{field}.webhook.name", value=gate.name, fix=fix)
        try:
            signing_key(webhook)
            trust(webhook)
        except (OSError, ssl.SSLError, Unanswered) as error:
            fix = f"correct SEGUE_WEBHOOKS on the worker: {error}"
            raise Refused("has unusable settings", field=f"{field}.webhook.name", value=gate.name, fix=fix) from error

    async def ask(self, gate: OwnGate, context: GateContext) -> Verdict:
        """Send the question, and judge the answer. Anything but an answer is not evidence."""
        webhook = self._webhooks.get(gate.webhook.name if gate.webhook else "")
        if webhook is None:
            return unanswered(gate.name, "the webhook is no longer in this worker's settings")
        target, rules, state, seen, tally, now = context
        question = question_of(gate, target, rules, state, seen, tally, now)
        try:
            async with asyncio.timeout(webhook.timeout_s):
                answer = await _answer(webhook, question)
        except TimeoutError:
            return unanswered(gate.name, f"the webhook did not answer within {webhook.timeout_s:g} s")
        except Unanswered as error:
            return unanswered(gate.name, f"the webhook {error}")
        except (aiohttp.ClientError, OSError) as error:
            return unanswered(gate.name, f"the webhook cannot be reached: {reason_of(error)}")
        return answer.judged(gate.name)


async def _answer(webhook: Webhook, question: Question) -> Answer:
    """Ask once, and again if the server could not be reached or failed.

    Raises:
        Unanswered, aiohttp.ClientError, OSError.
    """
    async with posted(webhook, question.model_dump_json(by_alias=True).encode(), question.key) as response:
        return await _read(response)


async def _read(response: aiohttp.ClientResponse) -> Answer:
    if 300 <= response.status < 400:
        raise Unanswered(f"redirects ({response.status}), and the worker does not follow redirects")
    if response.status != 200:
        raise Unanswered(f"answers {response.status} instead of 200")
    body = bytearray()
    async for chunk in response.content.iter_chunked(8192):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise Unanswered(f"answers with more than {MAX_ANSWER_BYTES} bytes")
    return read_answer(bytes(body))
