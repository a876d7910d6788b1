"""What `make soak` does to its workers, with a real one: the rest of its machinery runs only there."""

import asyncio
import time

from harness import open_lab
from segue_local import Stack
from weather.api_proxy import api_proxy
from weather.play import Weather
from weather.scenario import Fault


async def test_the_weather_stops_and_kills_a_worker(stack: Stack) -> None:
    """A stopped worker continues as the same process; a killed one is replaced, also one that was stopped before."""

    async def passes(*faults: Fault) -> int:
        await asyncio.to_thread(weather.pass_over, faults, time.monotonic())
        assert weather.worker.lives
        return int(weather.worker.process.pid)

    with api_proxy(stack.kubeconfig_for("segue-worker"), stack.state_dir, seed=1) as proxy:
        async with open_lab(stack) as fleet:
            weather = Weather(stack, fleet, proxy, "{}")
            await weather.worker.serves()
            first = weather.worker.process.pid
            assert await passes(Fault("worker-stopped", 0.0, 0.1), Fault("worker-clock", 0.0, 0.1)) == first
            assert await passes(Fault("worker-stopped", 0.0, 0.3), Fault("worker-killed", 0.2, 0.3)) != first
