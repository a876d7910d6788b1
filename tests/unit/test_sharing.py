"""Callers with the same request at the same time share an answer, and never get one from before their request."""

import asyncio
from typing import Any

import pytest

from activities.cluster import _read_once, reading_once
from activities.sharing import Shared


class Source:
    """Counts the requests; each is answered with its number, when a test says so."""

    def __init__(self) -> None:
        self.began = 0
        self.answers = asyncio.Event()

    async def request(self) -> int:
        self.began += 1
        number = self.began
        await self.answers.wait()
        if number == 3:
            raise ValueError("the third")
        return number


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_hundreds_of_callers_cost_two_requests() -> None:
    """Those that come while a request is under way wait for the next one."""
    shared, source = Shared[int](), Source()

    async def ask(number: int = 1) -> list[asyncio.Task[int]]:
        tasks = [asyncio.create_task(shared.ask("key", source.request)) for _ in range(number)]
        await settled()
        return tasks

    (first,) = await ask()
    many = await ask(200)
    assert source.began == 1
    many[0].cancel()
    source.answers.set()
    assert await first == 1
    assert await asyncio.gather(*many[1:]) == [2] * 199, "one that is cancelled ends no request of others"
    assert source.began == 2 and not shared._running and not shared._next


async def test_keys_are_apart_and_errors_go_to_those_that_asked() -> None:
    shared, source = Shared[int](), Source()
    source.answers.set()
    assert await shared.ask("a", source.request) == 1
    assert await shared.ask("b", source.request) == 2
    errors = await asyncio.gather(*(shared.ask("a", source.request) for _ in range(2)), return_exceptions=True)
    assert [str(each) for each in errors] == ["the third"] * 2
    assert await shared.ask("a", source.request) == 4


async def test_a_block_reads_once_and_a_task_that_outlives_it_reads_again() -> None:
    """Errors are not remembered."""
    began: list[str] = []

    async def read(what: str) -> dict[str, Any]:
        async def request() -> dict[str, Any]:
            began.append(what)
            if began == ["bad"]:
                raise ValueError(what)
            return {"read": len(began)}

        return await _read_once((what,), request)

    async def later() -> dict[str, Any]:
        await over.wait()
        return await read("a")

    over = asyncio.Event()
    with reading_once():
        with pytest.raises(ValueError, match="bad"):
            await read("bad")
        assert [await read(each) for each in ("bad", "a", "bad", "a")] == [{"read": n} for n in (2, 3, 2, 3)]
        outlives = asyncio.create_task(later())
    over.set()
    assert await outlives == {"read": 4}
    assert [await read("a"), await read("a")] == [{"read": 5}, {"read": 6}]
