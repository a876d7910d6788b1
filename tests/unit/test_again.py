"""What ``make test`` does with tests that failed beside others."""

import subprocess
import sys
from pathlib import Path

import again
import pytest

PROJECT = """
from pathlib import Path
import pytest

def test_by_chance():
    first = not Path("seen").exists()
    Path("seen").touch()
    assert not first

def test_always():
    assert {always}

@pytest.fixture
def fixture():
    {fixture}

def test_fixture(fixture):
    pass
"""

FIRST_RUN = """
import sys
from pathlib import Path
import again
import pytest
sys.exit(pytest.main([], [again.Failures(Path("out"))]))
"""
SUPPORT = str(Path(again.__file__).parent)


def run(folder: Path, *, always: bool = True, fixture: str = "pass") -> int:
    """Run a small project's tests, and then what failed; return the exit code."""
    (folder / "test_it.py").write_text(PROJECT.format(always=always, fixture=fixture))
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -q -p no:asyncio\n")
    first = subprocess.run([sys.executable, "-c", FIRST_RUN], cwd=folder, env={"PYTHONPATH": SUPPORT}, check=False)
    assert first.returncode == 1
    return again.main(folder)


def test_a_test_that_fails_by_chance_runs_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 0
    output = capfd.readouterr().out
    assert output.rstrip().endswith("(see above). Find out why:\n  test_it.py::test_by_chance")
    assert "1 passed" in output


def test_a_test_that_fails_again_fails_the_run(tmp_path: Path) -> None:
    assert run(tmp_path, always=False) == 1


def test_a_fixture_that_fails_does_not_run_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, fixture="raise OSError") == 1
    assert "a fixture failed, not only a test: test_it.py::test_fixture" in capfd.readouterr().err


def test_nothing_runs_again_after_many_failures_or_none() -> None:
    assert again.refusal([], []) == "the run failed, and no test did"
    assert again.refusal(["a"] * again.AT_MOST, []) == ""
    assert again.refusal(["a"] * (again.AT_MOST + 1), []) == "4 tests failed; at most 3 run again"
