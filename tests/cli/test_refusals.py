"""Bad input gets one message that names field, value and fix, and exit code 2."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
Segue = Callable[..., Any]

GOOD = (EXAMPLES / "rollout.yaml").read_text()
HEAD = "apiVersion: segue.dev/v1alpha1\nkind: Rollout\nmetadata: {name: chat}\n"
MINIMAL = HEAD + "spec:\n  target: {namespace: serving, name: chat}\n  change: {images: {server: 'example/chat:2'}}\n"
DEPLOYMENT = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: chat}\nspec: {replicas: 4}\n"

# id: (spec text, what the message must say)
SPECS: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown field": (GOOD.replace("onFailure", "onFailur"), ("spec.onFailur", "segue schema")),
    "unknown nested field": (GOOD.replace("minReady", "minimumReady"), ("readiness.minimumReady",)),
    "misspelt field": (GOOD.replace("maxSurge", "maxsurge"), ("maxsurge", "check its spelling, perhaps maxSurge")),
    "misplaced field": (GOOD + "  hold: 5m\n", ("spec.hold: '5m'", "check its spelling and its place")),
    "hundreds of fields": (GOOD + "".join(f"  x{n}: 1\n" for n in range(300)), ("spec.x19: 1", "\nand 280 more\n")),
    "missing target": (HEAD + "spec: {change: {images: {a: b}}}", ("spec.target", "is missing; add it")),
    "missing change": (HEAD + "spec: {target: {name: chat}}", ("spec.change", "is missing; add it")),
    "empty change": (GOOD.replace('{images: {server: "example/chat:2"}}', "{}"), ("spec.change", "is empty")),
    "percentage over 100": (GOOD.replace("25%", "125%"), ("spec.strategy.maxSurge", "125%", "write 0% to 100%")),
    "percentage without sign": (GOOD.replace("25%", "'25'"), ("spec.strategy.maxSurge", "'25'")),
    "negative count": (GOOD.replace("25%", "-1"), ("spec.strategy.maxSurge", "-1", "write 0 or more")),
    "fraction": (GOOD.replace("25%", "0.5"), ("spec.strategy.maxSurge", "0.5", "write 2 or 25%")),
    "both budgets zero": (GOOD.replace("25%", "0"), ("both 0", "raise one of them to 1")),
    "negative hold": (GOOD.replace("30s", "-30s"), ("waypoints[0].hold", "-30s", "such as 30s")),
    "hold without unit": (GOOD.replace("30s", "30"), ("waypoints[0].hold", "30", "with its unit")),
    "hold of months": (GOOD.replace("30s", "9000h"), ("over 30 days", "approval: true")),
    "waypoint at zero": (GOOD.replace("at: 1,", "at: 0,"), ("waypoints[0]", "write 1 or more")),
    "step zero": (GOOD.replace("step: 2", "step: 0"), ("spec.strategy.step", "0: is too small; write 1 or more")),
    "step as text": (GOOD.replace("step: 2", "step: two"), ("spec.strategy.step", "'two'", "write one without quotes")),
    "unknown order": (GOOD.replace("order: scaleOutPriority", "order: newFirst"), ("strategy.order", "newFirst")),
    "deadline under minReady": (GOOD.replace("10m", "2s"), ("minReady", "shorten it, or write a longer deadline")),
    "deadline of days": (GOOD.replace("10m", "48h"), ("deadline", "write 1s to 24h")),
    "unknown failure policy": (GOOD.replace("onFailure: rollback", "onFailure: panic"), ("spec.onFailure", "panic")),
    "other kind of target": (GOOD.replace("kind: Deployment", "kind: DaemonSet"), ("target.kind", "'DaemonSet'")),
    "capital name": (GOOD.replace("name: chat}\n  change", "name: Chat}\n  change"), ("target.name", "'Chat'")),
    "other apiVersion": (GOOD.replace("v1alpha1", "v9"), ("apiVersion", "segue.dev/v9", "write 'segue.dev/v1alpha1'")),
    "other kind": (GOOD.replace("kind: Rollout", "kind: Deployment"), ("kind", "write 'Rollout'")),
    "a manifest": (DEPLOYMENT, ("kind: 'Deployment': is not the kind of a rollout; write 'Rollout'",)),
    "image of no string": (GOOD.replace('"example/chat:2"', "1.10"), ("images.server", "1.1", "put it in quotes")),
    "change and patch": (
        MINIMAL.replace("images:", "patch: {spec: {}}, images:"), ("spec.change.patch", "give one or the other",),
    ),
    "secret as text": (
        MINIMAL.replace("images: {server: 'example/chat:2'}", "env: {server: {HF_TOKEN: hf_abc}}"),
        ("env.server.HF_TOKEN", "secretKeyRef"),
    ),
    "not a mapping": ("- a\n- b\n", ("is not a mapping", "write apiVersion")),
    "a bare word": ("hello\n", ("is not a mapping",)),
    "empty": ("", ("is empty", "segue schema")),
    "only a comment": ("# nothing\n---\n", ("is empty",)),
    "two documents": (GOOD + "---\n" + GOOD, ("contains 2 documents", "keep one Rollout per file")),
    "broken yaml": ("a: [1,\nb: 2\n", (":3:1:", "does not parse", "; correct the YAML there")),
    "tab as indent": ("spec:\n\ttarget: x\n", (":2:1:", "does not parse", "; indent with spaces")),
    "json with a key twice": ('{"a": 1, "a": 2}', (":1:10:", "'a' is given twice; keep one")),
    "key given twice": (GOOD + "  onFailure: pause\n", (":19:3:", "'onFailure' is given twice; keep one")),
    "alias": ("a: &a [1]\nb: *a\n", (":2:4:", "aliases (*name) are not supported; write the value out")),
    "duration without end": (GOOD.replace("10m", "9" * 30 + "h"), ("readiness.deadline", "write less, such as 1h30m")),
    "kind of no text": (GOOD.replace("kind: Deployment", "kind: [Deployment]"), ("spec.target.kind", "write 'Depl")),
    "number as a name": (GOOD + "  1: 2\n", ("is not the name of a field; write the name as text",)),
    "too many digits": ("a: 0x" + "f" * 5000, (":1:4:", "is not a value of the kind int; put it in quotes")),
    "no such day": ("a: 2020-13-45", (":1:4:", "'2020-13-45' is not a value of the kind timestamp")),
    "wrong tag": ("a: !!bool 'x; y'", (":1:4:", "'x; y' is not a value of the kind bool; put it in quotes")),
    "nested too deeply": ("[" * 5000, ("is nested too deeply",)),
    "python object": ("!!python/object/apply:os.system ['true']\n", (":1:1:", "does not parse")),
    "control character": ("a: \x00\n", ("does not parse",)),
    "too large": ("# " + "x" * 300_000, ("is over 256 KiB",)),
}  # fmt: skip


@pytest.mark.parametrize("case", SPECS)
def test_a_bad_spec_is_refused(segue: Segue, spec_file: Callable[[str], str], case: str) -> None:
    """The message names file, field, value and fix; nothing is printed as data."""
    text, expected = SPECS[case]
    path = spec_file(text)
    ran = segue("plan", path, "--replicas", "4")
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert path in ran.err
    assert "Traceback" not in ran.err
    for part in expected:
        assert part in ran.err


# id: (arguments, what the message must say)
ARGUMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no file name": (("plan", ""), ("file name: '': is empty; name a file",)),
    "empty rules of an undo": (("undo", "serving/chat", "--like", ""), ("file name: '': is empty",)),
    "empty rules of a retarget": (("retarget", "serving/chat", "--like", ""), ("file name: '': is empty",)),
    "empty policy": (
        ("plan", str(EXAMPLES / "rollout.yaml"), "--replicas", "6", "--policy", ""), ("file name: '': is empty",),
    ),
    "empty profile file": (
        ("plan", str(EXAMPLES / "rollout.yaml"), "--replicas", "6", "--profile-file", ""),
        ("--profile-file: '': is empty; name a file, or leave the option out",),
    ),
    "absent policy": (
        ("plan", str(EXAMPLES / "rollout.yaml"), "--replicas", "6", "--policy", "absent.yaml"),
        ("absent.yaml: does not exist; check the path; docs/policy.md",),
    ),
    "a name for a file": (("start", "serving/chat"), ("does not exist; give the path of a spec file, not the name",)),
    "another kind": (
        ("history", "svc/serving/chat"),
        ("NAME: 'svc/serving/chat': svc is neither a kind that Segue rolls (Deployment, ", "set SEGUE_CLUSTERS="),
    ),
    "another kind in a cluster": (
        ("status", "west/svc/serving/chat"), ("svc is not a kind that Segue rolls", "(Deployment, DeploymentPair, "),
    ),
    "no account": (("rights", "--service-account", "A/b c"), ("--service-account: 'A/b c': is not NAMESPACE/NAME",)),
    "break-glass without a reason": (("resume", "serving/chat", "--break-glass"), ("reason: '': is empty",)),
    "time of an abort without one": (
        ("start", str(EXAMPLES / "rollout.yaml"), "--wait", "--cancel-timeout", "5m"),
        ("--cancel-timeout: '5m': has no effect; add --on-cancel abort",),
    ),
    "file absent": (("plan", "absent.yaml"), ("absent.yaml: does not exist; check the path",)),
    "directory": (("plan", str(EXAMPLES)), ("is a directory; give one file in it",)),
    "replicas zero": (("plan", str(EXAMPLES / "rollout.yaml"), "--replicas", "0"), ("--replicas: 0: must be",)),
    "replicas huge": (("plan", str(EXAMPLES / "rollout.yaml"), "--replicas", "99999"), ("--replicas: 99999",)),
    "replicas no number": (("plan", str(EXAMPLES / "rollout.yaml"), "--replicas", "x"), ("--replicas",)),
    "unknown output": (("plan", str(EXAMPLES / "rollout.yaml"), "-o", "xml"), ("xml",)),
    "unknown command": (("rol",), ("rol",)),
    "no name": (("status",), ("NAME",)),
    "name with five parts": (("status", "a/b/c/d/e"), ("NAME: 'a/b/c/d/e'", "name it NAMESPACE/NAME")),
    "name with capitals": (("status", "serving/Chat"), ("NAME: 'serving/Chat'", "serving/chat")),
    "name empty": (("status", ""), ("NAME: ''",)),
    "name of another kind": (("status", "rollout/c/n/no-kind/x"), ("does not name a rollout",)),
    "name of a run": (("abort", "rollout/c/n/Deployment/x@1f"), ("leave out its run: rollout/c/n/Deployment/x names",)),
    "namespace empty": (("doctor", "-n", ""), ("--namespace: '': is not a valid name of a namespace; write one",)),
    "namespace with a quote": (("list", "-n", 'a" OR'), ("--namespace: 'a\" OR': is not a valid name of a namespace",)),
    "name as absent file": (("pause", "absent.yaml"), ("absent.yaml: does not exist",)),
    "cluster": (("list", "--cluster", 'a"b'), ("--cluster: 'a\"b'", "use letters, digits")),
    "timeout": (
        ("start", str(EXAMPLES / "rollout.yaml"), "--wait", "--timeout", "soon"), ("--timeout: 'soon'", "30s, 5m"),
    ),
    "profile file without a profile": (
        ("plan", str(EXAMPLES / "rollout.yaml"), "--replicas", "6", "--profile-file", "nope"),
        ("--profile-file: 'nope': has no effect: the spec names no profile of a team",),
    ),
    "profile file without a spec": (
        ("lint", "serving/chat", "--profile-file", "nope"), ("serving/chat is a target, not a spec file",),
    ),
    "undo timeout": (("undo", "serving/chat", "--timeout", "5m"), ("--timeout: '5m': needs --wait; add --wait",)),
    "retention": (("setup", "--retention", "9h"), ("--retention: '9h': needs --create-namespace",)),
    "release timeout": (("release", "serving/chat", "--timeout", "5"), ("--timeout: '5'",)),
    "scale to zero": (("scale", "serving/chat", "0"), ("replicas", "0", "write 1 or more")),
    "scale to a word": (("scale", "serving/chat", "many"), ("N: 'many'", "whole number")),
    "retarget to nothing": (("retarget", "serving/chat"), ("give --image/--env, or --baseline, or --file",)),
    "retarget two ways": (("retarget", "serving/chat", "--baseline", "--image", "a=b"), ("exactly one way",)),
    "retarget image form": (("retarget", "serving/chat", "--image", "chat:3"), ("--image: 'chat:3'", "server=")),
    "retarget image value": (("retarget", "serving/chat", "--image", "a=$(x)"), ("--image: images.a: '$(x)'",)),
    "retarget env form": (("retarget", "serving/chat", "--env", "KEY=1"), ("--env: is not CONTAINER:KEY=VALUE",)),
    "retarget other target": (
        ("retarget", "serving/other", "-f", str(EXAMPLES / "rollout.yaml")), ("is for serving/chat, not for",),
    ),
    "reason too long": (("pause", "serving/chat", "--reason", "x" * 2000), ("reason",)),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments_are_refused(segue: Segue, case: str) -> None:
    """They are refused before the command contacts any server."""
    arguments, expected = ARGUMENTS[case]
    ran = segue(*arguments)
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err
    for part in expected:
        assert part in ran.err


def test_an_empty_policy_file_is_told_what_to_write(segue: Segue, spec_file: Callable[[str], str]) -> None:
    """It is not told to write a Rollout."""
    ran = segue("plan", str(EXAMPLES / "rollout.yaml"), "--replicas", "6", "--policy", spec_file(""))
    assert ran.code == 2
    assert "is empty; write a Policy; docs/policy.md describes it" in ran.err


def test_an_absent_recording_is_told_where_recordings_come_from(segue: Segue, spec_file: Callable[[str], str]) -> None:
    """It is not told to start from a spec."""
    ran = segue("judge", spec_file("{kind: counts, judge: {threshold: {max: 0.1}}}"), "--new", "absent.json")
    assert ran.code == 2
    assert "absent.json: does not exist; check the path; docs/judging.md" in ran.err


@pytest.mark.parametrize("command", ["plan", "lint", "history", "undo", "release"])
def test_a_cluster_without_a_way_to_it_is_refused(segue: Segue, spec_file: Callable[[str], str], command: str) -> None:
    """A command that needs the cluster of a target never takes another one."""
    named = spec_file(MINIMAL.replace("namespace:", "cluster: west, namespace:"))
    for what in (named,) if command == "plan" else (named, "west/serving/chat"):
        ran = segue(command, what)
        assert ran.code == 2, ran.err
        assert 'set SEGUE_CLUSTERS=\'{"west": ' in ran.err
        if what == named:
            assert "target.cluster: 'west': is not a cluster of the settings; set " in ran.err
        else:
            assert "west is neither a kind that Segue rolls (Deployment, " in ran.err


@pytest.mark.parametrize("command", ["lint", "history", "undo", "release"])
@pytest.mark.parametrize(
    "named",
    [("rollout/west/serving/Deployment/chat",), ("serving/chat", "--cluster", "west")],
    ids=["workflow-id", "option"],
)
def test_the_cluster_that_a_name_means_is_taken(
    segue: Segue, monkeypatch: pytest.MonkeyPatch, command: str, named: tuple[str, ...]
) -> None:
    """With clusters in the settings it is one of them, or refused; without any it is the one of KUBECONFIG."""
    elsewhere = segue(command, *named)
    assert "no-kubeconfig" in elsewhere.err and "target.cluster" not in elsewhere.err
    monkeypatch.setenv("SEGUE_CLUSTERS", '{"east": {"context": "east-admin"}}')
    unknown = segue(command, *named)
    assert unknown.code == 2
    assert "target.cluster: 'west': is not a cluster of the settings; set " in unknown.err
    monkeypatch.setenv("SEGUE_CLUSTERS", '{"west": {"kubeconfig": "/absent/west"}}')
    known = segue(command, *named)
    assert "/absent/west" in known.err


def test_a_secret_on_the_command_line_is_refused_and_not_repeated(segue: Segue) -> None:
    """``--env`` refuses what looks like a secret, and does not print it."""
    ran = segue("retarget", "serving/chat", "--env", "server:HF_TOKEN=hf_abc123")
    assert ran.code == 2
    assert "secretKeyRef" in ran.err
    assert "hf_abc123" not in ran.err


def test_an_unreadable_file_is_refused(segue: Segue, tmp_path: Path) -> None:
    """A file that is no text is refused with the reason."""
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    ran = segue("plan", str(path), "--replicas", "4")
    assert ran.code == 2
    assert "is not UTF-8 text" in ran.err


def test_the_codec_server_needs_keys(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the keys it would answer, and decrypt nothing."""
    monkeypatch.delenv("SEGUE_ENCRYPTION_KEYS", raising=False)
    options = ("--origin", "https://ui", "--issuer", "https://login", "--audience", "codec", "--jwks", "jwks.json")
    ran = segue("codec", *options)
    assert ran.code == 2
    assert "SEGUE_ENCRYPTION_KEYS: is not set; set it to the file of the keys" in ran.err
