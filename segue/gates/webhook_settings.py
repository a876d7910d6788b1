"""The worker's setting of a webhook for gates, and the signature of its requests. Pure."""

import hashlib
import hmac
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from segue.spec.base import Model

SIGNATURE = "Segue-Signature"
KEY = "Idempotency-Key"


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ValueError("is not an address; write https://HOST/PATH")
    if parts.username or parts.password:
        raise ValueError("contains a password, which would be logged; remove it: requests are signed")
    return url


class Webhook(Model):
    """The address of a webhook, and how the worker calls it."""

    url: Annotated[str, AfterValidator(_address)] = Field(max_length=2048)
    secret_file: Path = Field(
        strict=False, description="Key that signs requests. The worker reads it for each request."
    )
    timeout_s: float = Field(
        default=10.0, gt=0, le=60, strict=False, description="Seconds for one question, all tries together."
    )
    ca_file: Path | None = Field(
        default=None, strict=False, description="PEM file of the authorities to trust instead of the system's."
    )


def signature(secret: bytes, body: bytes, at_s: int) -> str:
    """Return the header's value: ``t=SECONDS,v1=HEX``, HMAC-SHA256 over ``SECONDS.BODY``.

    The signature covers the time, so that a receiver can refuse a request that was recorded and sent again later.
    """
    digest = hmac.new(secret, b"%d." % at_s + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


def is_signed(secret: bytes, body: bytes, header: str, now_s: float, tolerance_s: float = 300.0) -> bool:
    """Return whether a request was signed with this secret within the tolerance. For receivers written in Python."""
    parts = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    if not re.fullmatch(r"[0-9]{1,20}", parts.get("t", "")) or abs(now_s - int(parts["t"])) > tolerance_s:
        return False
    return hmac.compare_digest(signature(secret, body, int(parts["t"])).encode(), header.encode())
