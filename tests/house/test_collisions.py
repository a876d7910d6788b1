"""The worker's refusal to run beside another distribution with our package names."""

import importlib.metadata

import pytest

from segue.errors import Refused
from worker import compose


def test_another_owner_of_a_package_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another distribution that owns `workflows` is named, with the fix."""
    owners = {**importlib.metadata.packages_distributions(), "workflows": ["segue-rollouts", "some-other-package"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
    with pytest.raises(Refused, match="workflows: is also installed by some-other-package; install Segue in an"):
        compose.refuse_collisions()


def test_our_own_environment_is_accepted() -> None:
    """Where only Segue owns its names, the worker starts."""
    compose.refuse_collisions()
