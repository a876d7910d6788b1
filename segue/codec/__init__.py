"""Encrypts what Temporal stores of a rollout: the one data converter of the worker, the client and the command line.

``SEGUE_ENCRYPTION_KEYS`` names the file of the keys; without it, nothing is encrypted. ``docs/encryption.md`` describes
the file, and what cannot be encrypted.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes, PayloadCodec

from segue.errors import Refused

if TYPE_CHECKING:  # the library of ciphers takes a moment to load, and encryption is off by default
    from segue.codec.keys import KeyFile

SETTING = "SEGUE_ENCRYPTION_KEYS"
ENCODING = b"binary/encrypted"
KEY_ID = "encryption-key-id"
"""The name of the key id in the metadata of an encrypted payload."""


class Codec(PayloadCodec):
    """Encrypts each payload by AES-256-GCM. The key id is in its metadata, and is authenticated with it.

    Without a key file, it encrypts nothing, and names the missing key of what is encrypted.
    """

    def __init__(self, file: "KeyFile | None") -> None:
        self._file = file

    @property
    def encrypts(self) -> bool:
        """Whether it has keys."""
        return self._file is not None

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt the payloads with the current key."""
        if self._file is None:
            return list(payloads)
        return [self._file.sealed(each) for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt the payloads. One that is not encrypted stays as it is: encryption may be turned on at any time.

        So does one without a key id, which another codec made: the workflow refuses it, and its task does not fail.

        Raises:
            Refused: naming the key id, when the key is missing or does not fit.
        """
        return [self._opened(each) if self._is_sealed(each) else each for each in payloads]

    @staticmethod
    def _is_sealed(payload: Payload) -> bool:
        return payload.metadata.get("encoding") == ENCODING and KEY_ID in payload.metadata

    def _opened(self, payload: Payload) -> Payload:
        key_id = payload.metadata[KEY_ID].decode(errors="replace")
        if self._file is None:
            why = f"is not set, and the data is encrypted with key {key_id}"
            raise Refused(why, field=SETTING, fix="set it to the file that has this key: see docs/encryption.md")
        return self._file.opened(payload, key_id)


def configured() -> Codec:
    """Return the codec that ``SEGUE_ENCRYPTION_KEYS`` configures.

    Raises:
        Refused: when the key file cannot be used; with the setting, its value and the fix, and never with a key.
    """
    path = os.environ.get(SETTING)
    if not path:
        return Codec(None)
    from segue.codec.keys import KeyFile  # noqa: PLC0415

    return Codec(KeyFile(Path(path)))


def data_converter() -> DataConverter:
    """Return the data converter of every client and worker. It also encrypts the messages of failures.

    Raises:
        Refused: when the key file cannot be used.
    """
    codec = configured()
    converter = replace(pydantic_data_converter, payload_codec=codec)
    if not codec.encrypts:
        return converter
    return replace(converter, failure_converter_class=DefaultFailureConverterWithEncodedAttributes)


async def reveal(failure: Failure, converter: DataConverter) -> None:
    """Put the encrypted message of a failure, and those of its causes, back in place.

    Raises:
        Refused: naming the key id, when the key is missing or does not fit.
    """
    if failure.HasField("encoded_attributes"):
        [found] = await converter.decode([failure.encoded_attributes], [dict[str, Any]])
        failure.message = str(found.get("message", failure.message))
    if failure.HasField("cause"):
        await reveal(failure.cause, converter)
