"""Reads events of controllers."""

from activities.cluster import Object


def happened(event: Object) -> str:
    """Return when an event happened last, as the API server writes times."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def refusal_of(event: Object) -> str:
    """Return the API server's answer from an event that no pod could be created: controllers write before it."""
    message = str(event.get("message", ""))
    return message.partition(" failed error: ")[2] or message.removeprefix("Error creating: ")
