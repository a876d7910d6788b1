"""Composes the worker: settings, telemetry, health, and ``python -m worker``."""
