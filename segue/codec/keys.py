"""The file of the encryption keys, such as a mounted Secret. It is read again when it changes."""

import base64
import binascii
import logging
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload

from segue.codec import ENCODING, KEY_ID, SETTING
from segue.errors import Refused

log = logging.getLogger("segue.codec")

KEY_BYTES = 32
NONCE_BYTES = 12
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CREATE = "create a key with `openssl rand -base64 32`"


@dataclass(frozen=True)
class Keys:
    """The keys of one file: all of them decrypt, the current one encrypts."""

    current: str
    ciphers: dict[str, AESGCM]


class KeyFile:
    """A TOML file of keys.

    A change of the file takes effect at once. A change that cannot be used is logged, and the former keys stay: a
    mistake in a Secret does not stop the rollouts that are under way.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._stamped()
        self._keys = self._read()

    def keys(self) -> Keys:
        """Return the keys of the file as it is now."""
        stamp = self._stamped()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._keys = self._read()
                log.info("encryption keys are read again; the current key is %s", self._keys.current)
            except Refused as error:
                log.error("the changed encryption keys cannot be used, the former ones stay: %s", error)  # noqa: TRY400
        return self._keys

    def sealed(self, payload: Payload) -> Payload:
        """Encrypt a payload with the current key."""
        keys, nonce = self.keys(), os.urandom(NONCE_BYTES)
        key_id = keys.current.encode()
        data = nonce + keys.ciphers[keys.current].encrypt(nonce, payload.SerializeToString(), key_id)
        return Payload(metadata={"encoding": ENCODING, KEY_ID: key_id}, data=data)

    def opened(self, payload: Payload, key_id: str) -> Payload:
        """Decrypt a payload.

        Raises:
            Refused: naming the key id, when the file does not have that key, or the key does not fit.
        """
        ciphers = self.keys().ciphers
        if key_id not in ciphers:
            why = f"has no key {key_id}, which the data is encrypted with; it has {', '.join(ciphers)}"
            self._refuse(why, f"add {key_id} to its [keys], or use the file of the workers")
        nonce, sealed = payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:]
        try:
            return Payload.FromString(ciphers[key_id].decrypt(nonce, sealed, key_id.encode()))
        except (InvalidTag, ValueError) as error:
            why = f"key {key_id} does not decrypt the data: it is another key of that id, or the data was changed"
            fix = "use the file of the workers; never give a new key the id of an old one"
            raise Refused(why, field=SETTING, value=str(self._path), fix=fix) from error

    def _stamped(self) -> tuple[int, ...]:
        """Return what changes when the file does; empty when there is no file. A Secret's update is a new inode."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> Keys:
        try:
            content = tomllib.loads(self._path.read_text())
        except OSError as error:
            self._refuse(f"cannot be read: {error.strerror}", "name a file that this process may read")
        except ValueError as error:  # the parser's message has a place, and no text of the file
            where = error if isinstance(error, tomllib.TOMLDecodeError) else "it is not UTF-8"
            self._refuse(f"is not TOML: {where}", "write it as docs/encryption.md shows")
        current, keys = content.get("current"), content.get("keys")
        if content.keys() != {"current", "keys"} or not isinstance(keys, dict) or not keys:
            self._refuse("needs exactly `current` and a table [keys]", "write it as docs/encryption.md shows")
        ciphers = {name: AESGCM(self._key(name, text)) for name, text in keys.items()}
        if not isinstance(current, str) or current not in ciphers:
            self._refuse(f"`current` is not one of its [keys]: {', '.join(ciphers)}", "set it to the id of one of them")
        return Keys(current, ciphers)

    def _key(self, name: str, text: Any) -> bytes:
        if not _ID.fullmatch(name):
            self._refuse("a key id is not allowed", "use at most 64 letters, digits, dots, dashes and underscores")
        try:
            key = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError, TypeError):
            self._refuse(f"key {name} is not base64", _CREATE)
        if len(key) != KEY_BYTES:
            self._refuse(f"key {name} has {len(key)} bytes instead of {KEY_BYTES}", _CREATE)
        return key

    def _refuse(self, why: str, fix: str) -> NoReturn:
        raise Refused(why, field=SETTING, value=str(self._path), fix=fix) from None
