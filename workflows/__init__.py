"""Thin workflows: the loop, messages, and undo on failure. They call activities by contract only."""
