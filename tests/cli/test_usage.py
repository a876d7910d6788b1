"""A wrong command line gets what a wrong spec gets: one message with field, value and fix, and exit code 2."""

from collections.abc import Callable
from typing import Any

import pytest

Segue = Callable[..., Any]

# the arguments: the message
WRONG: dict[tuple[str, ...], str] = {
    ("plan",): "FILE: is missing; run `segue plan -h` to see what it takes",
    ("scale", "serving/chat"): "N: is missing; run `segue scale -h` to see what it takes",
    ("judge", "x.yaml"): "--new: is missing; run `segue judge -h` to see what it takes",
    ("scale", "serving/chat", "many"): "N: 'many': is not a whole number; write one",
    ("plan", "x.yaml", "--replicas", "x"): "--replicas: 'x': is not a whole number; write one",
    ("undo", "serving/chat", "--to-revision", "0"): "--to-revision: '0': is too small; write 1 or more",
    ("list", "--limit", "5000"): "--limit: '5000': is too large; write 1000 or less",
    ("plan", "x.yaml", "-o", "yaml"): "--output: 'yaml': is not one of the choices; write 'table', 'json'",
    ("crd", "x"): "NAME: 'x': is not one of the choices; write 'rollouts', 'rolloutprofiles', 'clusterrolloutprofiles'",
    ("plan", "x.yaml", "--replica", "6"): (
        "--replica: is not an option of `segue plan`; perhaps you mean --policy or --replicas; "
        "run `segue plan -h` to see what it takes"
    ),
    ("plan", "x.yaml", "--nope"): "--nope: is not an option of `segue plan`; run `segue plan -h` to see what it takes",
    ("plan", "--replicas"): "--replicas: requires an argument; run the command with -h to see what it takes",
    ("start", "x", "--wait=3"): "--wait: does not take a value; run the command with -h to see what it takes",
    ("plan", "x.yaml", "y.yaml"): (
        "segue plan: got unexpected extra argument(s) (y.yaml); run `segue plan -h` to see what it takes"
    ),
    ("statu",): (
        "segue: no such command 'statu'. Did you mean 'status', 'start', 'setup'?; run `segue -h` to see what it takes"
    ),
    ("builds", "lst"): (
        "segue builds: no such command 'lst'. Did you mean 'list'?; run `segue builds -h` to see what it takes"
    ),
    ("local", "up", "--nodes", "x"): "--nodes: 'x': is not a whole number; write one",
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_a_wrong_command_line_is_refused_like_a_wrong_spec(segue: Segue, arguments: tuple[str, ...]) -> None:
    ran = segue(*arguments)
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {WRONG[arguments]}\n")


@pytest.mark.parametrize("group", [(), ("builds",), ("local",)])
def test_a_group_without_a_command_shows_its_help(segue: Segue, group: tuple[str, ...]) -> None:
    ran = segue(*group)
    assert (ran.code, ran.err) == (2, "")
    assert f"Usage: {' '.join(('segue', *group))} [OPTIONS] COMMAND" in ran.out


def test_the_version_is_also_an_option(segue: Segue) -> None:
    assert segue("--version") == segue("version")


def test_a_shell_completes_commands_options_and_choices(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the script of ``segue --show-completion`` asks at each TAB."""

    def completed(words: str) -> list[str]:
        monkeypatch.setenv("_SEGUE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        return str(segue().out).split()

    assert completed("segue stat") == ["status"]
    assert completed("segue plan --rep") == ["--replicas"]
    assert completed("segue plan -o ") == ["table", "json"]


def test_a_retarget_that_names_nothing_learns_each_way(segue: Segue) -> None:
    ran = segue("retarget", "serving/chat")
    assert (ran.code, ran.out) == (2, "")
    assert all(way in ran.err for way in ("--image", "--env", "--baseline", "--file", "--like"))


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: a
contexts: [{name: a, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:9"}}]
users: [{name: u, user: {}}]
"""
BROKEN = {
    "empty": "",
    "text": "hello",
    "a list": "- a",
    "no YAML": "a: [",
    "no UTF-8": "\udcff\udcfe",
    "no such context": KUBECONFIG.replace("current-context: a", "current-context: b"),
    "no such user": KUBECONFIG.replace("user: u}", "user: w}"),
    "address of no text": KUBECONFIG.replace('"https://127.0.0.1:9"', "9"),
    "contexts of no list": KUBECONFIG.replace("contexts: [{name: a, context: {cluster: c, user: u}}]", "contexts: 5"),
    "key of no base64": KUBECONFIG.replace("user: {}", "user: {client-certificate-data: x, client-key-data: x}"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_kubeconfig_is_named(
    segue: Segue, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, broken: str
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_bytes(BROKEN[broken].encode(errors="surrogateescape"))
    monkeypatch.setenv("KUBECONFIG", str(path))
    ran = segue("history", "serving/chat")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: KUBECONFIG: {str(path)!r}: ")
    assert ran.err.endswith("; set KUBECONFIG, or run `segue local up`\n")
    assert ran.err.count("\n") == 1
