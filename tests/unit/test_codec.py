"""The encryption of payloads: its keys, their rotation, and what a person reads when a key is missing."""

import base64
import os
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from segue.codec import ENCODING, KEY_ID, SETTING, configured, data_converter, reveal
from segue.errors import Refused

KEY, OTHER = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
SECRET = Payload(metadata={"encoding": b"json/plain"}, data=b'"planted"')


class Keys:
    """The file of the keys, as a mounted Secret."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def are(self, current: str, **keys: str) -> None:
        self.text(f'current = "{current}"\n[keys]\n' + "".join(f'{name} = "{key}"\n' for name, key in keys.items()))

    def text(self, text: str) -> None:
        """Replace the file by another, as the kubelet does."""
        new = self.path.with_name("..new")
        new.write_text(text)
        new.replace(self.path)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    monkeypatch.setenv(SETTING, str(tmp_path / "keys.toml"))
    return Keys(tmp_path / "keys.toml")


async def test_it_encrypts_and_decrypts(keys: Keys) -> None:
    keys.are("a", a=KEY)
    codec = configured()
    one, two = await codec.encode([SECRET, SECRET])
    assert one.metadata == {"encoding": ENCODING, KEY_ID: b"a"}
    assert b"planted" not in one.SerializeToString() and one.data != two.data
    assert await codec.decode([one, SECRET, two]) == [SECRET] * 3


async def test_what_another_codec_encrypted_stays_as_it_is(keys: Keys) -> None:
    """Its task does not fail: the workflow refuses it."""
    foreign = Payload(metadata={"encoding": ENCODING}, data=b"zzzz")
    keys.are("a", a=KEY)
    assert await configured().decode([foreign]) == [foreign]


async def test_a_key_is_rotated_without_a_restart(keys: Keys) -> None:
    """A running process reads the changed file; the old key still decrypts until it is removed."""
    keys.are("a", a=KEY)
    codec = configured()
    [old] = await codec.encode([SECRET])
    keys.are("b", a=KEY, b=OTHER)
    [new] = await codec.encode([SECRET])
    assert new.metadata[KEY_ID] == b"b"
    assert await codec.decode([old, new]) == [SECRET, SECRET]
    keys.are("b", b=OTHER)
    with pytest.raises(Refused, match=r"^SEGUE_ENCRYPTION_KEYS: '.*keys.toml': has no key a, .*; it has b; add a to"):
        await codec.decode([old])


@pytest.mark.parametrize("change", ["broken", "gone"])
async def test_a_change_that_cannot_be_used_keeps_the_former_keys(
    keys: Keys, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    keys.are("a", a=KEY)
    codec = configured()
    keys.text(f"{KEY}{OTHER}") if change == "broken" else keys.path.unlink()
    assert await codec.decode([*await codec.encode([SECRET])]) == [SECRET]
    [message] = [record.getMessage() for record in caplog.records]
    assert "the former ones stay: SEGUE_ENCRYPTION_KEYS: " in message and KEY not in message
    keys.are("b", b=OTHER)
    assert (await codec.encode([SECRET]))[0].metadata[KEY_ID] == b"b"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "needs exactly `current` and a table"),
        (f'current = "a"\n[keys]\na = "{KEY}"\n[more]', "needs exactly `current` and a table"),
        ('current = "a"\nkeys = {}', "needs exactly `current` and a table"),
        (f'current = "a"\n[keys]\na = {KEY}', "is not TOML: "),
        (f'current = "b"\n[keys]\na = "{KEY}"', "`current` is not one of its [keys]: a; set it to"),
        (f'current = ["a"]\n[keys]\na = "{KEY}"', "`current` is not one of its [keys]: a; set it to"),
        (f'current = "a"\n[keys]\na = "{KEY[:24]}"', "key a has 18 bytes instead of 32; create a key with `openssl"),
        (f'current = "a"\n[keys]\na = "{KEY}"\nb = "{KEY[:-2]}"', "key b is not base64; create a key with"),
        ('current = "a"\n[keys]\na = 7', "key a is not base64; create a key with"),
        (f'current = "a"\n[keys]\n"a b" = "{KEY}"', "a key id is not allowed; use at most 64"),
    ],
)
def test_a_file_that_is_wrong_is_refused(keys: Keys, text: str, why: str) -> None:
    """The message has the setting, the file and the fix, and nothing of a key."""
    keys.text(text)
    with pytest.raises(Refused) as refused:
        data_converter()
    message = str(refused.value)
    assert message.startswith(f"SEGUE_ENCRYPTION_KEYS: '{keys.path}': {why}"), message
    assert KEY[:12] not in message


def test_a_file_that_cannot_be_read_is_refused(keys: Keys) -> None:
    with pytest.raises(Refused, match="cannot be read: No such file or directory; name a file that"):
        data_converter()
    keys.path.mkdir()
    with pytest.raises(Refused, match="cannot be read: Is a directory; name a file that"):
        data_converter()


async def test_what_was_changed_does_not_pass(keys: Keys) -> None:
    """Neither changed data, nor another key of that id, nor the id of another key on the same data."""
    keys.are("a", a=KEY, b=KEY)
    codec = configured()
    [sealed] = await codec.encode([SECRET])
    renamed = Payload(metadata={**sealed.metadata, KEY_ID: b"b"}, data=sealed.data)
    changed = Payload(metadata=sealed.metadata, data=sealed.data[:-1] + bytes([sealed.data[-1] ^ 1]))
    for each in (renamed, changed, Payload(metadata=sealed.metadata, data=os.urandom(5))):
        with pytest.raises(Refused, match=r"key [ab] does not decrypt the data: it is another key of that id, or"):
            await codec.decode([each])
    keys.are("a", a=OTHER)
    with pytest.raises(Refused, match="key a does not decrypt the data"):
        await codec.decode([sealed])


async def test_without_keys_nothing_is_encrypted_and_a_missing_key_is_named(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.are("2026-11", **{"2026-11": KEY})
    [sealed] = await configured().encode([SECRET])
    monkeypatch.delenv(SETTING)
    assert await configured().encode([SECRET]) == [SECRET] == await configured().decode([SECRET])
    with pytest.raises(Refused, match=r"^SEGUE_ENCRYPTION_KEYS: is not set, .* with key 2026-11; set it to the file"):
        await data_converter().decode([sealed])


async def test_messages_of_failures_are_encrypted(keys: Keys) -> None:
    """A failure and its cause: nothing readable is stored, and what is stored can be read again."""
    keys.are("a", a=KEY)
    converter, failure = data_converter(), Failure()
    error = ApplicationError("planted", {"value": "planted"}, type="Refused")
    error.__cause__ = ValueError("planted too")
    await converter.encode_failure(error, failure)
    assert b"planted" not in failure.SerializeToString()
    stored = Failure.FromString(failure.SerializeToString())
    await reveal(stored, converter)
    assert (stored.message, stored.cause.message) == ("planted", "planted too")
    found = await converter.decode_failure(failure)
    assert isinstance(found, ApplicationError) and found.details == ({"value": "planted"},)
