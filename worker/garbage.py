"""The garbage collector of a worker. By default it takes a fifth of the CPU of rollouts that move."""

import gc

THRESHOLDS = 5_000, 10, 5
"""After how many new objects the youngest generation is collected, and after how many of its collections the next ones.

Python's own 700 are for small programs: a single request to the API server makes more. A collection of 5,000 objects
takes about a millisecond.
"""


def spare_what_stays() -> None:
    """Exclude all present objects from collection: mostly modules and classes, which live as long as the process.

    Call it once, at the start. Otherwise each full collection traverses them, and blocks the event loop for a quarter
    of a second.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
