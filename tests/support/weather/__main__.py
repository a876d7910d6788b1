"""``make soak``: random rollouts under random weather on the real servers, judged independently.

python -m weather --seed 7                       # the day of one seed
python -m weather --seed 7 --only worker-killed  # the same day with only these faults
python -m weather --minutes 60 --jobs 2          # new seeds for an hour, on two stacks
"""

import argparse
import asyncio
import collections
import contextlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator

from segue_local import Stack, tied_stack
from temporalio.runtime import Runtime, TelemetryConfig

from weather.play import play
from weather.scenario import FAULTS, ROLLOUTS, make_day

GATES = {"MaxUnavailableStatefulSet": True}


def main() -> int:
    """Play days until the wanted number or time is over; return the exit code."""
    given = _arguments()
    jobs = 1 if given.seed is not None and given.runs <= given.rollouts else given.jobs
    if jobs == 1:
        wrong = _play_days(given, 0, 1)
    else:
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            wrong = sum(pool.starmap(_play_days, [(given, job, jobs) for job in range(jobs)]))
    print("no violation" if not wrong else f"{wrong} days with violations", flush=True)
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("weather", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, help="the first seed; alone, only this one is played (default: the time)")
    parser.add_argument(
        "--only", default="", help=f"only these faults, by comma; 'none' for none:\n{', '.join(FAULTS)}"
    )
    parser.add_argument("--having", default="", help="only days with one of these faults, by comma")
    parser.add_argument("--runs", type=int, default=0, help="so many rollouts in all")
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS, help="rollouts of each day (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=0.0, help="new seeds for so long")
    parser.add_argument("--jobs", type=int, default=1, help="so many stacks side by side")
    parser.add_argument("--stack", default="", help="a running stack to use, for --jobs 1; its servers are killed")
    given = parser.parse_args()
    only, having = (set(filter(None, each.split(","))) for each in (given.only, given.having))
    unknown = (only - {*FAULTS, "none"}) | (having - {*FAULTS})
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no such fault")
    if not given.runs and not given.minutes:
        given.runs = given.rollouts if given.seed is not None else 30
    if given.seed is None:
        given.seed = int(time.time())
    return given


def _play_days(given: argparse.Namespace, job: int, jobs: int) -> int:
    """Play each ``jobs``-th seed on one stack; return the number of days with violations."""
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=None)))  # lost connections are what this is for
    ends = time.monotonic() + given.minutes * 60
    wrong, tally = 0, collections.Counter[str]()
    with _stack(given, job) as stack:
        seed, rollouts = given.seed + job, 0
        while rollouts * jobs < given.runs or time.monotonic() < ends:
            if not given.having or make_day(seed, given.rollouts).has(given.having.split(",")):
                wrong += _play(stack, seed, given, tally)
                rollouts += given.rollouts
            seed += jobs
    for what, count in sorted(tally.items()):
        print(f"{count:5} {what}", flush=True)
    return wrong


@contextlib.contextmanager
def _stack(given: argparse.Namespace, job: int) -> Iterator[Stack]:
    if given.stack:
        found = Stack.find(given.stack)
        if found is None:
            raise SystemExit(f"no stack {given.stack} is up")
        yield found
        return
    name = f"segue-weather-{os.getpid()}-{job}"
    with tied_stack(name, lws=True, feature_gates=GATES, on_progress=lambda line: print(line, file=sys.stderr)) as up:
        yield up


def _play(stack: Stack, seed: int, given: argparse.Namespace, tally: "collections.Counter[str]") -> bool:
    """Play the day of one seed, print it, and tell whether something was wrong."""
    day, began = make_day(seed, given.rollouts), time.monotonic()
    if given.only:
        day = day.only(given.only.split(","))
    try:
        outcomes = asyncio.run(play(stack, day))
    except Exception:
        print(f"seed {seed} could not be played:\n{traceback.format_exc()}", flush=True)
        return True
    weather = ", ".join(fault.what for fault in day.weather) or "fine"
    where = ", all in one namespace" if day.together else ""
    print(f"seed {seed}: {weather}{where}, {time.monotonic() - began:.0f} s", flush=True)
    for outcome in outcomes:
        rolled = outcome.rolled
        tally[f"{rolled.kind} {outcome.ended[:40]}"] += 1
        faults = ", ".join(fault.what for fault in rolled.faults)
        print(
            f"  {rolled.name} {rolled.kind} of {rolled.replicas} {rolled.mode}: {outcome.ended} ({faults})", flush=True
        )
        if outcome.wrong:
            print(*(f"    WRONG: {each}" for each in outcome.wrong), f"    {rolled}", sep="\n")
            print(*(f"      {line}" for line in outcome.lines), sep="\n", flush=True)
    is_wrong = any(outcome.wrong for outcome in outcomes)
    if is_wrong:
        print(f"  again: make soak SEED={seed}{_as_given(given)}", flush=True)
    return is_wrong


def _as_given(given: argparse.Namespace) -> str:
    """Return the options that make the day what it was, as ``make soak`` takes them."""
    options = [f"--only {given.only}"] if given.only else []
    options += [f"--rollouts {given.rollouts}"] if given.rollouts != ROLLOUTS else []
    return f" WEATHER='{' '.join(options)}'" if options else ""


if __name__ == "__main__":
    sys.exit(main())
