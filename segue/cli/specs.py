"""Reads a spec file for a command, with the profile of a team that it names: from files, else from the cluster."""

import os
from typing import Annotated, Any, NamedTuple

import typer

from segue.cli.options import access_by, run_async
from segue.errors import Refused
from segue.files import PROFILES, profile_in_files, read_document, source_of
from segue.spec import OwnProfile, Rollout, Standing, named_profile, read_object, refuse_paused
from segue.spec.profile import perhaps
from segue.spec.refusals import NamedProfile

ProfileFile = Annotated[
    str | None,
    typer.Option(
        "--profile-file", envvar=PROFILES, metavar="FILE",
        help="The file of a profile that the spec names, or a directory of such files; otherwise the cluster has it.",
        show_default=False,
    ),
]  # fmt: skip


class SpecDocument(NamedTuple):
    """A spec file that was read."""

    rollout: Rollout
    own: OwnProfile | None
    """The profile of a team that it names."""
    standing: Standing

    def to_start(self) -> Rollout:
        """Return the rollout to start.

        Raises:
            Refused: when it is paused.
        """
        refuse_paused(self.standing)
        return self.rollout


def read(path: str, profile_file: str | None = None) -> SpecDocument:
    """Read and validate one spec file (``-``: standard input); None takes the files that SEGUE_PROFILES names.

    Raises:
        Refused: naming file, field, value and fix; also when the settings do not have the cluster with the profile, and
            when ``profile_file`` is given for a spec that names no profile of a team.
        Unreachable: when a profile is to be read from a cluster that does not answer.
    """
    return written(read_document(path), source_of(path), profile_file)


def written(document: Any, source: str, profile_file: str | None = None) -> SpecDocument:
    """Return the rollout of one parsed document; see ``read``."""
    if profile_file is not None and not profile_file:
        raise Refused("is empty", field="--profile-file", value="", fix="name a file, or leave the option out")
    files = os.environ.get(PROFILES, "") if profile_file is None else profile_file
    wanted = named_profile(document)
    if wanted is None:
        refuse_unused(profile_file, "the spec names no profile of a team")
    own = profile_in_files(files, document)
    if own is None and wanted is not None:
        own = _in_cluster(wanted)
    rollout, standing = read_object(document, source, own)
    return SpecDocument(rollout, own, standing)


def refuse_unused(profile_file: str | None, why: str) -> None:
    """Refuse ``--profile-file`` where it has no effect; the variable SEGUE_PROFILES may be set for other specs.

    Raises:
        Refused: when the option has a value of its own.
    """
    if profile_file and profile_file != os.environ.get(PROFILES):
        fix = "write profile: {name: NAME} into the spec, or leave the option out"
        raise Refused(f"has no effect: {why}", field="--profile-file", value=profile_file, fix=fix)


def _in_cluster(wanted: NamedProfile) -> OwnProfile | None:
    from activities.profiles import read_profile  # noqa: PLC0415 - few commands need a cluster

    access = access_by(wanted.cluster)
    try:
        return run_async(read_profile(wanted, access))
    except Refused as error:
        why = f"is not a built-in profile, no file has it, and it cannot be read from the cluster: {error}"
        fix = f"check the name{perhaps(wanted.name)}, or give its file by --profile-file or {PROFILES}"
        raise Refused(why, field="spec.profile.name", value=wanted.name, fix=fix) from error
