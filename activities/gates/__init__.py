"""Gates: each asks one question of the new version, and leaves the judgement to the core.

A new kind is an ``Asker`` in a file here, its part of the spec and its judgement in ``segue/gates``.
"""
