"""Processes that are forked from a server which has imported everything: workers, and the command line.

Each starts in tenths of a second, instead of importing for a second on a core that other tests need. It has only those
parts of the Kubernetes client that Segue's image has.
"""

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

_PRELOADED = [
    "as_in_the_image", "killing_worker", "killing_controller", "pytest", "segue.cli", "segue.library",
    "segue.temporal_setup", "activities.linting", "activities.profiles", "activities.release",
    "activities.target_facts", "worker.doctor",
]  # fmt: skip
"""The first one decides what the others can import; the last ones are what commands import late."""
_context = multiprocessing.get_context("forkserver")


def start(
    mark: dict[str, str], environment: dict[str, str], log: Path, run: Callable[..., None], *given: Any,
    errors: Path | None = None,
) -> Any:  # fmt: skip
    """Start a process that calls ``run`` with ``given``, an environment of its own, and a log for all of its output.

    With ``errors``, that file gets its stderr.

    The server and its forks carry the stack's mark: they end with the stack, also when the tests are killed.
    """
    _context.set_forkserver_preload(_PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        # The server finds modules by PYTHONPATH only.
        for name, value in {**mark, "PYTHONPATH": os.pathsep.join(sys.path)}.items():
            patch.setenv(name, value)
        forkserver.ensure_running()
    log.touch()
    arguments = (environment, log, errors or log, run, given)
    process: ForkServerProcess = _context.Process(target=_begin, args=arguments, daemon=True)
    process.start()
    return process


def _begin(
    environment: dict[str, str], log: Path, errors: Path, run: Callable[..., None], given: tuple[Any, ...]
) -> None:
    for stream, path in ((sys.stdout, log), (sys.stderr, errors)):
        with path.open("a") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    # The client reads KUBECONFIG when it is imported, which was before the fork.
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environment["KUBECONFIG"]
    run(*given)


def run_command(*arguments: str) -> None:
    """Run ``segue`` with these arguments, as its script does."""
    from segue.cli import main

    sys.argv[:] = ["segue", *arguments]
    main()


def run_module(name: str, *arguments: str) -> None:
    """Run a module as ``python -m`` does, with these arguments."""
    sys.argv[1:] = arguments
    sys.modules.pop(f"{name}.__main__", None)  # imported before the fork, it would make runpy warn
    runpy.run_module(name, run_name="__main__", alter_sys=True)
