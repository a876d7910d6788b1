"""Gates: what is asked of a new version, and how the answers are judged. Pure: asking is in ``activities/gates``.

Each question has a small file: its part of the spec, and its judgement. ``policy`` is what all that are asked again and
again have in common, ``standing`` says where one stands after all of its answers.
"""

from segue.gates.verdict import Result, Verdict, VerdictEvidence, combined, failure_of

__all__ = ["Result", "Verdict", "VerdictEvidence", "combined", "failure_of"]
