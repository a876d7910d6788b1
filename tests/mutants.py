"""Changes the code in one small way at a time, and lists the changes that no fast test notices.

    make mutants                                       # 40 of them
    make mutants MUTANTS='200 --seed 7 --only segue/transition.py'
    make mutants MUTANTS='200 --near'                  # only against the tests that name the module: some seconds each
    make mutants MUTANTS='200 --near --limit-s 60'     # a mutant whose tests never end is given up after a minute

Each mutant prints a line as soon as it is tried, so a run that is stopped has shown its count so far. A survivor is a
line that the fast tests do not hold: write the test, or remove the line. The code is copied for it; the working tree is
not touched. The same seed takes the same mutants.
"""

import argparse
import ast
import contextlib
import copy
import difflib
import importlib.util
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "out")
MUTATED = (
    "segue/admission.py", "segue/arithmetic.py", "segue/as_before.py", "segue/budget.py", "segue/decide.py",
    "segue/ended_pods.py",
    "segue/failures.py", "segue/gates/standing.py", "segue/groups.py", "segue/hindrance.py", "segue/messages.py",
    "segue/pacing.py", "segue/plan.py", "segue/resting.py", "segue/room.py", "segue/state.py", "segue/status.py",
    "segue/traffic.py", "segue/transition.py", "segue/undoing.py", "segue/waits.py", "workflows/rollout.py",
)  # fmt: skip
LOADED = (
    "pytest", "_pytest.assertion.rewrite", "hypothesis", "kubernetes.client", "pytest_asyncio", "segue.spec",
    "segue.observation", "temporalio.testing", "temporalio.worker", "xdist", "yaml",
)  # fmt: skip
"""Modules that import none of ``MUTATED``. They are loaded once, so that a run of tests begins in half a second."""
FAST = ("tests/replay", "tests/unit", "tests/cli")
OWN = {
    "segue/arithmetic.py": "test_decide.py", "segue/hindrance.py": "test_failures.py",
    "segue/state.py": "test_transition.py", "segue/waits.py": "test_decide.py",
}  # fmt: skip
"""A module's own test, if it has another name."""
SIMULATION = "test_simulation.py"
ROLLOUTS = "1000"
"""How many rollouts the simulation plays against a mutant."""
LIMIT_S = 600
FORKS = multiprocessing.get_context("forkserver")
AROUND = 60
"""How many characters of a changed line are shown before and after the change."""
OPPOSITES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


class Mutant(NamedTuple):
    """One change of one file."""

    file: str
    line: int
    before: str
    """The whole file, without its comments."""
    source: str
    """The same, changed."""

    @property
    def diff(self) -> list[str]:
        """The changed lines; of a long one, what surrounds the change."""
        lines = difflib.unified_diff(self.before.splitlines(), self.source.splitlines(), n=0, lineterm="")
        found = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
        if len(found) != 2:
            return found
        before, after = (line[1:].strip() for line in found)
        skip, cut = (max(0, _same(*pair) - AROUND) for pair in ((before, after), (before[::-1], after[::-1])))
        return [
            f"{sign} {'… ' * (skip > 0)}{line[skip : len(line) - cut]}" for sign, line in (("-", before), ("+", after))
        ]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def _same(one: str, other: str) -> int:
    """Return with how many equal characters both begin."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the small changes of one node."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in OPPOSITES:
            yield ast.Compare(node.left, [OPPOSITES[type(operator)]()], node.comparators)
        case ast.BoolOp(values=values):
            yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), values)
            yield from values
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.IfExp(test=test, body=body, orelse=other):
            yield ast.IfExp(test, other, body)
        case ast.If(test=test):
            yield ast.If(ast.Constant(False), node.body, node.orelse)
            yield ast.If(ast.UnaryOp(ast.Not(), test), node.body, node.orelse)
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as number):
            yield ast.Constant(number + 1)
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            yield ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)


class Place(NamedTuple):
    """Where a file may be changed: the number of the node in it, and which of its changes."""

    file: str
    node: int
    choice: int

    def mutant(self, folder: Path) -> Mutant:
        """Make the change, of the file in this copy."""
        tree = ast.parse((folder / self.file).read_text())
        before, victim = ast.unparse(tree), _node(tree, self.node)
        after = ast.copy_location(list(changed(copy.deepcopy(victim)))[self.choice], victim)
        source = ast.unparse(ast.fix_missing_locations(_Replacing(victim, after).visit(tree)))
        return Mutant(self.file, victim.lineno, before, source)


def _node(tree: ast.AST, number: int) -> Any:
    return list(ast.walk(tree))[number]


def places(file: str, folder: Path) -> list[Place]:
    """Return where a file may be changed."""
    nodes = enumerate(ast.walk(ast.parse((folder / file).read_text())))
    return [Place(file, number, choice) for number, node in nodes for choice, _ in enumerate(changed(node))]


class _Replacing(ast.NodeTransformer):
    def __init__(self, victim: ast.AST, after: ast.AST) -> None:
        self._victim, self._after = victim, after

    def visit(self, node: ast.AST) -> ast.AST:
        return self._after if node is self._victim else self.generic_visit(node)


def nearest(file: str, folder: Path) -> list[str]:
    """Return the fast tests that name the module: they notice most, and the others need not be collected for it.

    The module's own test comes first, and the simulation last.
    """
    module, own = file.removesuffix(".py").replace("/", "."), OWN.get(file, f"test_{Path(file).name}")
    found = [path for tests in FAST for path in (folder / tests).rglob("test_*.py") if module in path.read_text()]
    found.sort(key=lambda path: (path.name != own, path.name == SIMULATION, path))
    return [str(path.relative_to(folder)) for path in found]


def survives(file: str, source: str, folder: Path, *, near_only: bool = False, limit_s: float = LIMIT_S) -> bool:
    """Run the fast tests against a changed file, until the first that fails."""
    path = folder / file
    original, near = path.read_text(), nearest(file, folder)
    try:
        _put(path, source)
        others = [] if near_only else [*FAST, *(f"--ignore={test}" for test in near)]
        return all(_pass(tests, limit_s) for tests in (near[:1], near[1:], others) if tests)
    finally:
        _put(path, original)


def _put(path: Path, source: str) -> None:
    path.write_text(source)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()  # its time is in whole seconds: it could pass for that of the next mutant


def _pass(tests: list[str], limit_s: float) -> bool:
    """Whether all these tests pass; one that never ends is noticed too."""
    running = FORKS.Process(target=_run, args=(tests,))
    running.start()
    assert running.pid is not None
    try:
        running.join(limit_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # its own simulations too
        running.join()
    return running.exitcode == 0


def _run(tests: list[str]) -> None:
    """Run tests in a process of its own, whose group the parent can kill."""
    import pytest  # loaded in the process that this one is a copy of

    os.setsid()
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    loaded = {f"{module.replace('.', '/')}.py" for module in sys.modules} & set(MUTATED)
    assert not loaded, f"LOADED imports what is mutated: {loaded}"
    for package in {file.partition("/")[0] for file in MUTATED}:
        found = importlib.util.find_spec(package)
        assert found and found.origin and Path(found.origin).is_relative_to(Path.cwd()), f"{package} is not the copy's"
    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))


@contextlib.contextmanager
def _copy() -> Iterator[Path]:
    """Yield a copy of the code. All tests run in it, from a process that has loaded ``LOADED``."""
    with tempfile.TemporaryDirectory() as made:
        folder = shutil.copytree(ROOT, Path(made) / "copy", ignore=NOT_COPIED)
        os.environ |= {"SEGUE_ROLLOUTS": ROLLOUTS, "PYTHONPATH": str(folder)}
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.chdir(folder)
        sys.path.insert(0, str(folder))  # the processes of the tests take it from here
        FORKS.set_forkserver_preload(list(LOADED))
        yield folder


def main() -> int:
    """Try a sample; the exit code tells whether every one was noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int, nargs="?", default=40, help="how many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", help="one file of those that are changed; can be repeated")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="after how long tests that do not end are ended")
    parser.add_argument("--near", action="store_true", help="run only the tests that name the changed module")
    given = parser.parse_args()
    files = [file for file in MUTATED if not given.only or file in given.only]
    if not files:
        parser.error(f"--only {' '.join(given.only)} is none of {', '.join(MUTATED)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the tests end and the copy is removed
    survivors = 0
    with _copy() as folder:
        every = [place for file in files for place in places(file, folder)]
        sample = random.Random(given.seed).sample(every, min(given.number, len(every)))
        print(f"{len(sample)} of {len(every)} mutants, seed {given.seed}; first the tests without any", flush=True)
        how: dict[str, Any] = {"near_only": given.near, "limit_s": given.limit_s}
        if not survives(sample[0].file, (folder / sample[0].file).read_text(), folder, **how):
            sys.exit("the fast tests fail without a mutant: mend them first")
        for number, place in enumerate(sample, 1):
            began, mutant = time.monotonic(), place.mutant(folder)
            alive = survives(mutant.file, mutant.source, folder, **how)
            survivors += alive
            took, found = time.monotonic() - began, "SURVIVES" if alive else "caught"
            print(f"[{number}/{len(sample)}] {number - survivors} caught; {took:.0f} s, {mutant} {found}", flush=True)
            if alive:
                print("\n".join(f"    {line}" for line in mutant.diff), flush=True)
    share = 100 * survivors / len(sample)
    print(f"{survivors} of {len(sample)} mutants survive ({share:.0f} %; {len(every)} in all, seed {given.seed})")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
