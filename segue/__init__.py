"""Segue: takes a model server on Kubernetes from one version to the next with no downtime, and back by itself."""

__version__ = "0.1.0"
