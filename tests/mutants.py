"""Changes the code in one small way at a time, and lists the changes that no fast test notices.

    make mutants                                       # 40 of them, about ten minutes
    .venv/bin/python tests/mutants.py 200 --seed 7 --only segue/transition.py

A survivor is a line that the fast tests do not hold: write the test, or remove the line. The code is copied for it;
the working tree is not touched. The same seed takes the same mutants.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "out")
MUTATED = (
    "segue/decide.py", "segue/state.py", "segue/transition.py", "segue/messages.py", "segue/status.py",
    "workflows/rollout.py",
)  # fmt: skip
FAST = (
    "tests/unit/test_transition.py", "tests/unit/test_messages.py", "tests/unit/test_decide.py", "tests/replay",
    "tests/unit", "tests/cli",
)  # fmt: skip
"""Those that find most come first: the first failure ends it."""
LIMIT_S = 300
OPPOSITES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


class Mutant(NamedTuple):
    """One change of one file."""

    file: str
    line: int
    before: str
    after: str
    source: str
    """The whole file, changed."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.before}  →  {self.after}"


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

    def mutant(self) -> Mutant:
        """Make the change."""
        tree = ast.parse((ROOT / self.file).read_text())
        victim: Any = list(ast.walk(tree))[self.node]
        before, after = _line(victim), ast.copy_location(list(changed(victim))[self.choice], victim)
        said = _line(after)
        source = ast.unparse(ast.fix_missing_locations(_Replacing(victim, after).visit(tree)))
        return Mutant(self.file, victim.lineno, before, said, source)


def _line(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()[0]


def places(file: str) -> list[Place]:
    """Return where a file may be changed."""
    nodes = enumerate(ast.walk(ast.parse((ROOT / file).read_text())))
    return [Place(file, number, choice) for number, node in nodes for choice, _ in enumerate(changed(node))]


class _Replacing(ast.NodeTransformer):
    def __init__(self, victim: ast.AST, after: ast.AST) -> None:
        self._victim, self._after = victim, after

    def visit(self, node: ast.AST) -> ast.AST:
        return self._after if node is self._victim else self.generic_visit(node)


def survives(mutant: Mutant, folder: Path) -> bool:
    """Run the fast tests against it, until the first that fails."""
    path = folder / mutant.file
    original = path.read_text()
    path.write_text(mutant.source)
    try:
        environment = {**os.environ, "SEGUE_ROLLOUTS": "300", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *FAST]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return False  # it never ends: noticed
    finally:
        path.write_text(original)
    return done.returncode == 0


def main() -> int:
    """Try a sample; the exit code tells whether every one was noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int, nargs="?", default=40, help="how many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="one file of those that are changed")
    given = parser.parse_args()
    every = [place for file in MUTATED if given.only in file for place in places(file)]
    sample = [place.mutant() for place in random.Random(given.seed).sample(every, min(given.number, len(every)))]
    survivors = []
    with tempfile.TemporaryDirectory() as made:
        folder = shutil.copytree(ROOT, Path(made) / "copy", ignore=NOT_COPIED)
        if not survives(sample[0]._replace(source=(ROOT / sample[0].file).read_text()), folder):
            sys.exit("the fast tests fail without a mutant: mend them first")
        for number, mutant in enumerate(sample, 1):
            if survives(mutant, folder):
                survivors.append(mutant)
                print(f"[{number}/{len(sample)}] survives: {mutant}", flush=True)
    print(f"{len(survivors)} of {len(sample)} mutants survive ({len(every)} in all, seed {given.seed})")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
