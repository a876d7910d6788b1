"""Whether replicas of one version run different images: somebody moved the tag that the version names. Pure."""

from collections.abc import Iterable

from segue.replica import Replica

_SHOWN = 19
"""The length of a digest for a person: ``sha256:`` and 12 digits."""


def moved_tag(replicas: Iterable[Replica]) -> str:
    """Return which container's image differs between replicas of one version, for a person; empty if none does.

    Nothing else shows it: the pod template is the same.
    """
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for replica in sorted(replicas, key=lambda each: each.name):
        for each in replica.containers:
            if each.digest:
                of_version = found.setdefault((replica.version, each.name, each.image), {})
                of_version.setdefault(each.digest, replica.name)
    differ = next((key for key, digests in found.items() if len(digests) > 1), None)
    if differ is None:
        return ""
    _, container, image = differ
    each_on = ", ".join(f"{digest[:_SHOWN]} on {name}" for digest, name in found[differ].items())
    return (
        f"replicas of one version run different images: {container}={image} is {each_on}; if somebody moved the tag, "
        "name the image by its digest"
    )
