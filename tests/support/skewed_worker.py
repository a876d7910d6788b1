"""A worker whose clock is off by the seconds in the file that SKEW names. They may change while it runs."""

import os
import runpy
import time
from pathlib import Path

SKEW = "SEGUE_TEST_SKEW"

_real, _skew = time.time, Path(os.environ.get(SKEW, "/dev/null"))


def _skewed() -> float:
    return _real() + float(_skew.read_text() or 0)


if __name__ == "__main__":
    time.time = _skewed
    runpy.run_module("worker", run_name="__main__", alter_sys=True)
