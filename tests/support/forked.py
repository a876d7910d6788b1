"""Processes that are forked from a server which has imported everything, so a worker starts in tenths of a second."""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.config import kube_config

_PRELOADED = ["killing_worker", "killing_controller", "pytest"]
_context = multiprocessing.get_context("forkserver")


def start(mark: dict[str, str], environment: dict[str, str], log: Path, run: Callable[..., None], *given: Any) -> Any:
    """Start a process that calls ``run`` with ``given``, an environment of its own, and a log for all of its output.

    The server and its forks carry the stack's mark: they end with the stack, also when the tests are killed.
    """
    _context.set_forkserver_preload(_PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        # The server finds modules by PYTHONPATH only.
        for name, value in {**mark, "PYTHONPATH": os.pathsep.join(sys.path)}.items():
            patch.setenv(name, value)
        forkserver.ensure_running()
    log.touch()
    process: ForkServerProcess = _context.Process(target=_begin, args=(environment, log, run, given), daemon=True)
    process.start()
    return process


def _begin(environment: dict[str, str], log: Path, run: Callable[..., None], given: tuple[Any, ...]) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    # The client reads KUBECONFIG when it is imported, which was before the fork.
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environment["KUBECONFIG"]
    run(*given)


def run_module(name: str, *arguments: str) -> None:
    """Run a module as ``python -m`` does, with these arguments."""
    sys.argv[1:] = arguments
    sys.modules.pop(f"{name}.__main__", None)  # imported before the fork, it would make runpy warn
    runpy.run_module(name, run_name="__main__", alter_sys=True)
