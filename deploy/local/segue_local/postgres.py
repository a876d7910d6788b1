"""PostgreSQL of a stack: Debian's programs, and a database cluster of the stack's own.

PostgreSQL refuses to run as root. Then it runs in a user namespace, in which root is Debian's user ``postgres``: its
files stay in the stack's private folder. In a PID namespace of its own, all its processes end with the first one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from segue_local import processes
from segue_local.once import Progress
from segue_local.packages import PackagesMissing, install_packages

USER = "temporal"
DATABASES = {"temporal": "temporal", "temporal_visibility": "visibility"}
"""The databases of Temporal, and the schema of each."""
PLUGIN = "postgres12_pgx"
_PACKAGE = "postgresql"
_PROGRAMS = Path("/usr/lib/postgresql")


def ensure_postgres(say: Progress) -> Path:
    """Return the folder of PostgreSQL's programs; install Debian's package if it is missing.

    Raises ``PackagesMissing``.
    """
    found = _found()
    if found is None:
        install_packages([_PACKAGE], say)
        found = _found()
    if found is None:
        raise PackagesMissing([_PACKAGE], f"no PostgreSQL is in {_PROGRAMS} or on PATH")
    if shutil.which("unshare") is None:
        raise PackagesMissing(["util-linux"], "there is no command `unshare`")
    return found


def _found() -> Path | None:
    debian = [path.parent for path in _PROGRAMS.glob("*/bin/postgres")]
    if debian:
        return max(debian, key=lambda path: int(path.parent.name))
    other = shutil.which("initdb")
    return Path(other).resolve().parent if other else None


def create(programs: Path, data: Path, password_file: Path, stack_dir: Path) -> None:
    """Create the database cluster in a new folder, with one superuser. Raises ``LocalStackError``."""
    options = [
        f"--username={USER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
    ]
    initdb = [str(programs / "initdb"), f"--pgdata={data}", *options, "--no-sync"]
    processes.run([*_alone(), *initdb], stack_dir=stack_dir)


def command(programs: Path, data: Path, port: int) -> list[str]:
    """Return its command line; it forks once."""
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        # A power cut may destroy the stack; what a killed process wrote stays in the page cache.
        "fsync": "off",
        "max_connections": "200",
    }
    arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    return [*_alone(), str(programs / "postgres"), "-D", str(data), *arguments]


def _alone() -> list[str]:
    """Return the prefix of a command that runs in namespaces of its own, never as root."""
    mapped = ["--map-user=postgres", "--map-group=postgres"] if os.geteuid() == 0 else ["--map-current-user"]
    return ["unshare", "--user", *mapped, "--pid", "--fork", "--kill-child"]


def answers(programs: Path, port: int) -> None:
    """Return if it accepts connections, else raise ``OSError``."""
    command = [str(programs / "pg_isready"), "--host=127.0.0.1", f"--port={port}", "--quiet"]
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode != 0:
        raise ConnectionError(f"pg_isready ended with {done.returncode}")


def schema_commands(tool: Path, port: int) -> list[list[str]]:
    """Return the commands that make Temporal's databases and their schemas; the password is in ``SQL_PASSWORD``."""
    commands = []
    for database, schema in DATABASES.items():
        tool_of = [str(tool), "--plugin", PLUGIN, "--ep", "127.0.0.1", "-p", str(port), "-u", USER, "--db", database]
        schema_name = f"postgresql/v12/{schema}"
        steps: Sequence[Sequence[str]] = (
            ("create",),
            ("setup-schema", "-v", "0.0"),
            ("update-schema", "--schema-name", schema_name),
        )
        commands += [[*tool_of, *step] for step in steps]
    return commands
