"""Segue rolls model servers on Kubernetes to another version without downtime, and rolls bad versions back."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segue.library import Client

__all__ = ["Client", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the client on first use: workflow code imports this package too, and must not import Temporal's client."""
    if name == "Client":
        from segue.library import Client  # noqa: PLC0415

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
