"""Gates: each asks one question about the new version, and leaves the judgement to the core.

A new kind needs an ``Asker`` in a file here, a part of the spec, and a judgement in ``segue/gates``.
"""
