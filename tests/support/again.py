"""The second run of ``make test``: a few tests that failed beside others run once more, alone.

Three processes share two cores, and some tests meet moments that last milliseconds. A test that passes alone does not
stop the others from being used, but it is a fault of Segue or of the test: the output names it, and somebody looks.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAILED = "failed.json"
AT_MOST = 3
"""More failures do not happen by chance: they count at once."""


class Failures:
    """A plugin of the process that distributes the tests: it notes which of them failed, and what else did."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FAILED
        self._file.unlink(missing_ok=True)
        self._tests: list[str] = []
        self._others: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            (self._tests if report.when == "call" else self._others).append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._file.parent.mkdir(exist_ok=True)
        self._file.write_text(json.dumps({"tests": self._tests, "others": self._others}, indent=1))


def refusal(tests: list[str], others: list[str]) -> str:
    """Return why the failures count at once; empty if the tests may run again."""
    if not tests and not others:
        return "the run failed, and no test did"
    if others:
        return f"a fixture failed, not only a test: {', '.join(others[:AT_MOST])}"
    if len(tests) > AT_MOST:
        return f"{len(tests)} tests failed; at most {AT_MOST} run again"
    return ""


def main(folder: Path) -> int:
    """Run what failed again in ``folder``, and return the exit code of ``make test``."""
    file = folder / "out" / FAILED
    failed = json.loads(file.read_text()) if file.exists() else {"tests": [], "others": []}
    why = refusal(failed["tests"], failed["others"])
    if why:
        print(f"No second run: {why}.", file=sys.stderr)
        return 1
    listed = "\n  ".join(failed["tests"])
    print(f"These tests failed beside others. They run once more, alone:\n  {listed}", flush=True)
    code = subprocess.run([sys.executable, "-m", "pytest", *failed["tests"]], cwd=folder, check=False).returncode
    if code == 0:
        print(f"These tests passed alone and failed beside others (see above). Find out why:\n  {listed}")
    return code


if __name__ == "__main__":
    sys.exit(main(ROOT))
