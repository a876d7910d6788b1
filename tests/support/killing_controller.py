"""Production's controller with an accident at one of its calls, for tests of what objects survive.

An accident is written ``patch_status#2:after``: after the second call of that name the process kills itself by SIGKILL.
The diary is a file, so a restarted controller knows that the accident has happened.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import worker.controller.serve as serving
from activities.cluster import Cluster
from worker.controller.engine import Engine

DIARY, POINT = "SEGUE_TEST_DIARY", "SEGUE_TEST_POINT"
TO_CLUSTER = ("get", "patch", "patch_status", "create_absent")
TO_TEMPORAL = ("latest", "later", "start", "send")


class Diary:
    """One line for each call, and for the accident."""

    def __init__(self, path: str) -> None:
        self.path = path

    def write(self, line: str) -> None:
        with open(self.path, "a") as file:  # noqa: PTH123
            file.write(f"{line}\n")

    @property
    def lines(self) -> list[str]:
        try:
            with open(self.path) as file:  # noqa: PTH123
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    @property
    def had_accident(self) -> bool:
        return "accident" in self.lines


def _reach(diary: Diary, point: str) -> None:
    if point == os.environ.get(POINT) and not diary.had_accident:
        diary.write("accident")
        os.kill(os.getpid(), signal.SIGKILL)


def _watched(diary: Diary, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def watched(*given: Any, **named: Any) -> Any:
        number = f"{name}#{1 + sum(line.partition('#')[0] == name for line in diary.lines)}"
        diary.write(number)
        _reach(diary, f"{number}:before")
        answer = await call(*given, **named)
        _reach(diary, f"{number}:after")
        return answer

    return watched


def main() -> int:
    diary = Diary(os.environ[DIARY])
    for owner, names in ((Cluster, TO_CLUSTER), (Engine, TO_TEMPORAL)):
        for name in names:
            setattr(owner, name, _watched(diary, name, getattr(owner, name)))
    return serving.main(os.environ["SEGUE_CLUSTER"], [os.environ["SEGUE_NAMESPACES"]])


if __name__ == "__main__":
    sys.exit(main())
