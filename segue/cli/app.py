"""The typer application itself, and the panels that its help is grouped by."""

import typer

PLAN_AND_START = "Plan and start"
SEE = "See"
STEER = "Steer"
OPERATE = "Operate"
INSTALL = "Install"

_HELP = """Roll a model server on Kubernetes to another version without downtime; roll back a bad version automatically.

Name a rollout by its target (NAMESPACE/NAME, or NAME in namespace default), by its workflow id, or by its spec
file.

Exit codes: 0 completed · 1 unexpected error · 2 input refused · 3 rolled back or aborted ·
4 needs a person · 5 Temporal, a worker or the cluster does not answer · 6 wait timed out ·
130, 141, 143 interrupted.
"""

app = typer.Typer(
    name="segue",
    help=_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
