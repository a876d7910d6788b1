"""Properties are tried without a time limit for each example: a slow machine is no failure."""

from hypothesis import settings

settings.register_profile("segue", deadline=None)
settings.load_profile("segue")
