"""Freezes of a policy: windows of local time in which nothing starts, or nothing moves forward. Pure."""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Self
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from segue.spec.base import Model, Name, wrong

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_TIME = re.compile(rf"(?:(?P<date>\d{{4}}-\d\d-\d\d) |(?P<day>{'|'.join(_DAYS)}) )?(?P<clock>\d\d:\d\d)")
_FORMS = "'2026-12-20 18:00', 'Fri 16:00' or '18:00'"


class Starts(StrEnum):
    """What happens to a rollout that is started in a freeze."""

    REFUSE = "refuse"
    HOLD = "hold"
    """It is prepared, and moves when the freeze ends."""


class Running(StrEnum):
    """What happens to a rollout that is under way when a freeze begins."""

    FINISH = "finish"
    PAUSE = "pause"
    """It stops where it is, and continues when the freeze ends. Gates still run and can roll back."""


class Freeze(Model):
    """A window of local time: once, every week, or every day."""

    name: Name
    begin: str = Field(alias="from", max_length=32, description=f"Local time: {_FORMS}.")
    end: str = Field(alias="to", max_length=32, description="The first local time after it, in the same form.")
    time_zone: str = Field(default="UTC", alias="timeZone", max_length=64, description="Such as Europe/Berlin.")
    start: Starts = Field(default=Starts.REFUSE, strict=False)
    running: Running = Field(default=Running.FINISH, strict=False)

    @model_validator(mode="after")
    def _readable(self) -> Self:
        try:
            ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError):
            raise wrong("timeZone", self.time_zone, "is not a time zone", "write one such as Europe/Berlin") from None
        for field, text in (("from", self.begin), ("to", self.end)):
            if not _is_time(text):
                raise wrong(field, text, "is not a local time", f"write {_FORMS}")
        if _form(self.begin) != _form(self.end):
            raise wrong(
                "to", self.end, f"has another form than from ({self.begin})", "write both with a date, a day or neither"
            )
        if self.begin == self.end or (_form(self.begin) == "date" and self.end < self.begin):
            raise wrong("to", self.end, f"is not after from ({self.begin})", "write a later time")
        return self

    def ends(self, now: float) -> datetime | None:
        """Return the end of the freeze that is in effect at ``now`` (seconds since the epoch); None without one."""
        zone = ZoneInfo(self.time_zone)
        local = datetime.fromtimestamp(now, UTC).astimezone(zone).replace(tzinfo=None)
        begin, period = _latest(self.begin, local), _period(self.begin)
        if _form(self.begin) == "date":
            windows = [(begin, _latest(self.end, local))]
        else:
            begins = (begin + period, begin, begin - period)
            windows = [(each, _latest(self.end, each) + period) for each in begins]
        # Compared as instants: when the clocks go back, a local time comes twice, and counts the first time.
        for begins_at, ends_at in ((each.replace(tzinfo=zone) for each in window) for window in windows):
            if begins_at.timestamp() <= now < ends_at.timestamp():
                return ends_at
        return None

    def until(self, now: float) -> str:
        """Return when the freeze that is in effect at ``now`` ends, for a person; empty while it is not in effect."""
        ends = self.ends(now)
        return "" if ends is None else f"{ends:%a %Y-%m-%d %H:%M} {self.time_zone}"


def _is_time(text: str) -> bool:
    found = _TIME.fullmatch(text)
    if found is None:
        return False
    try:
        datetime.strptime(f"{found['date'] or '2024-01-01'} {found['clock']}", "%Y-%m-%d %H:%M")
    except ValueError:
        return False
    return True


def _form(text: str) -> str:
    found = _TIME.fullmatch(text)
    return "" if found is None else "date" if found["date"] else "day" if found["day"] else "clock"


def _period(text: str) -> timedelta:
    return timedelta(days=7 if _form(text) == "day" else 1)


def _latest(text: str, local: datetime) -> datetime:
    """Return the latest local time at or before ``local`` that ``text`` names; of a date, that date."""
    found = _TIME.fullmatch(text)
    assert found is not None, "a freeze is validated"
    if found["date"]:
        return datetime.strptime(text, "%Y-%m-%d %H:%M")
    hour, minute = map(int, found["clock"].split(":"))
    at = local.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if found["day"]:
        at -= timedelta(days=(at.weekday() - _DAYS.index(found["day"])) % 7)
    return at if at <= local else at - _period(text)
