"""The error tree is all of it: no module of ours has an exception that it does not name."""

import importlib
import inspect
import pkgutil
import re

import activities
import segue
import worker
import workflows
from segue import errors
from segue.errors import Exit, Refused, SegueError

TREE = dict(re.findall(r"^[│├└─ ]*([A-Z]\w+) +exit (\d)", errors.__doc__ or "", re.MULTILINE))


def _modules() -> list[str]:
    packages = (segue, workflows, activities, worker)
    found = [m.name for package in packages for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [name for name in found if not name.endswith("__main__")]


def _exceptions(name: str) -> list[type[BaseException]]:
    """The exceptions that a module defines itself."""
    members = vars(importlib.import_module(name)).values()
    return [m for m in members if inspect.isclass(m) and issubclass(m, BaseException) and m.__module__ == name]


def test_every_exception_is_in_the_tree() -> None:
    modules = _modules()
    assert {"segue.client", "activities.cluster", "workflows.rollout", "worker.compose"} <= set(modules)
    elsewhere = {each for name in modules for each in _exceptions(name)} - set(_exceptions("segue.errors"))
    assert not elsewhere, f"move them to segue/errors.py: {elsewhere}"


def test_the_tree_tells_each_error_and_its_exit_code() -> None:
    ours = _exceptions("segue.errors")
    assert all(issubclass(each, SegueError) for each in ours)
    assert {each.__name__: str(int(each.exit_code)) for each in ours if issubclass(each, SegueError)} == TREE


def test_a_refusal_names_field_value_and_fix() -> None:
    assert str(Refused("is wrong", field="a.b", value=3, fix="write 4")) == "a.b: 3: is wrong; write 4"
    assert str(Refused("is wrong", value=0)) == "0: is wrong"
    assert str(Refused("is wrong")) == "is wrong"
    assert Refused.exit_code is Exit.REFUSED
