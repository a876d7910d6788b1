"""Merges of plain objects."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from segue.merging import at, difference, leaves, merged, merged_by_name, nested

NAMES = st.sampled_from("abc")
VALUES = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(NAMES, inner),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, VALUES)


@given(OBJECTS, OBJECTS)
def test_a_difference_is_what_makes_the_one_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merged(before, difference(before, after)) == after


@given(OBJECTS, OBJECTS)
def test_a_difference_is_all_of_its_leaves(before: dict[str, Any], after: dict[str, Any]) -> None:
    now = before
    for path, value in leaves(difference(before, after)):
        now = merged(now, nested(path, value))
    assert now == after


def test_lists_are_merged_by_name() -> None:
    """As a strategic merge does to containers: what is not named stays, what is new comes last, null removes."""
    pod = {"containers": [{"name": "a", "image": "1", "lifecycle": {"exec": 1}}, {"name": "b"}], "args": ["x"]}
    patch = {"containers": [{"name": "a", "lifecycle": {"exec": None, "sleep": 5}}, {"name": "c"}], "args": ["y"]}
    assert merged_by_name(pod, patch) == {
        "containers": [{"name": "a", "image": "1", "lifecycle": {"sleep": 5}}, {"name": "b"}, {"name": "c"}],
        "args": ["y"],
    }


def test_what_stands_below() -> None:
    assert at(nested(("a", "b"), 1), ("a", "b")) == 1
    assert at({"a": [1]}, ("a", "b")) is None
