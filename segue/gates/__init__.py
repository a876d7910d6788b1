"""Gates: what Segue asks about a new version, and how it judges the answers. Pure: ``activities/gates`` asks.

Each kind of gate has a small file with its judgement. ``segue.spec.gate_policy`` holds what all repeated gates have in
common. ``standing`` returns the result of a gate after all of its measurements.
"""

from segue.gates.verdict import Result, Verdict, VerdictEvidence, combined, failure_of

__all__ = ["Result", "Verdict", "VerdictEvidence", "combined", "failure_of"]
