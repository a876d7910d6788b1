"""`segue plan --policy` shows what a worker's policy refuses; a worker with a bad policy does not start."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Segue = Callable[..., Any]
ROOT = Path(__file__).parents[2]
POLICY = """
apiVersion: segue.dev/v1alpha1
kind: Policy
rules: [{name: strict, namespaces: [serving], start: [ci], limits: {maxSurge: 10%}}]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return file


def test_plan_shows_what_the_policy_refuses(segue: Segue, policy: Path) -> None:
    arguments = ("plan", str(ROOT / "examples/rollout.yaml"), "--replicas", "8", "--by", "eve", "--policy", str(policy))
    ran = segue(*arguments)
    assert ran.code == 0 and "chat" in ran.out
    assert "by: 'eve': may not start here: rule strict of the policy; ask one of: ci" in ran.err
    assert "spec.strategy.maxSurge: '25%': means 2 at 8 replicas, which is over 10%" in ran.err
    assert len(json.loads(segue(*arguments, "-o", "json").out)["policy"]) == 2


def test_plan_tells_which_rules_it_cannot_check(segue: Segue, policy: Path) -> None:
    by_namespace = "[{name: guarded, namespaceLabels: {env: production}}, "
    by_target = POLICY.replace("namespaces: [serving]", "namespaces: [serving], labels: {tier: gold}")
    policy.write_text(by_target.replace("[{", f"{by_namespace}{{", 1))
    ran = segue("plan", str(ROOT / "examples/rollout.yaml"), "--replicas", "8", "--by", "eve", "--policy", str(policy))
    assert ran.code == 0 and "may not start" not in ran.err
    assert "not checked: rules by labels (guarded, strict); leave --replicas out to read the labels" in ran.err


def test_a_worker_with_a_bad_policy_does_not_start(policy: Path) -> None:
    policy.write_text(POLICY.replace("10%", "110%"))
    env = {**os.environ, "SEGUE_POLICY": str(policy)}
    ran = subprocess.run(
        [sys.executable, "-m", "worker"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert f"{policy}: rules[0].limits.maxSurge: '110%': " in ran.stderr and "write 0% to 100%" in ran.stderr
