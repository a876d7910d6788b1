"""The chart as files: what it renders, what it refuses, and that README, schema and rights agree with their sources."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chart_values
import pytest
import typer
import yaml
from helm import CHART, Helm, Values, merged, only

from segue.cli.app import app
from segue.clusters import Access
from segue.rollout_object.crd import Definition, definition
from worker.settings import Settings, load_settings

ROOT = CHART.parents[1]
MINIMAL: Values = {
    "image": {"repository": "registry.example.com:5000/segue"},
    "temporal": {"address": "temporal.example.com:7233"},
    "rbac": {"namespaces": ["serving", "batch"]},
}
SECRET = {"name": "monitoring", "key": "x"}
FULL: Values = {
    **merged(MINIMAL, {"image": {"digest": "sha256:" + "0" * 64}, "rbac": {"gates": True, "room": True}}),
    "nameOverride": "rollouts",
    "commonLabels": {"team": "serving"},
    "imagePullSecrets": [{"name": "registry"}],
    "temporal": {
        "address": "acme.tmprl.cloud:7233",
        "namespace": "acme",
        "taskQueue": "segue-eu",
        "tls": {"enabled": True, "serverName": "acme", "caSecret": "temporal-ca", "clientCertificateSecret": "mtls"},
        "apiKey": {"secret": "temporal-key", "key": "api-key"},
    },
    "serviceAccount": {"name": "roller", "annotations": {"example.com/role": "segue"}},
    "prometheus": {
        "default": {"url": "http://prometheus.monitoring:9090"},
        "far": {"url": "https://far/p", "timeoutSeconds": 5, "bearerTokenSecret": SECRET, "caSecret": SECRET},
    },
    "webhooks": {"smoke": {"url": "https://ci:8443/q", "secret": SECRET, "timeoutSeconds": 20, "caSecret": SECRET}},
    "policy": {"configMap": "rollout-policy", "key": "rules.yaml"},
    "notifications": {
        "ci": {"url": "https://ci:8444/n", "secret": SECRET, "timeoutSeconds": 7, "caSecret": SECRET},
        "team": {"addressSecret": {"name": "slack", "key": "url"}, "title": "{target} {says}", "text": "{page}"},
    },
    "supervised": {"Server": {"resource": "servers.example.com/v1", "pods": "app={name}"}},
    "servingCredentials": {"secret": "credentials"},
    "encryption": {"secret": "keys", "key": "current.toml"},
    "worker": {
        "logLevel": "DEBUG", "logFormat": "text", "maxConcurrentActivities": 60,
        "gracefulShutdownSeconds": 60, "podAccess": "direct", "healthPort": 9000,
        "otlpEndpoint": "http://collector:4317",
        "temporalUi": "https://temporal.example",
    },
    "metrics": {"sdk": True, "serviceMonitor": {"enabled": True, "labels": {"release": "prom"}, "interval": "15s"}},
    "networkPolicy": {"enabled": True, "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "podLabels": {"sidecar.istio.io/inject": "false"},
    "podAnnotations": {"a": "b"},
    "extraEnv": [{"name": "SEGUE_BY", "value": "chart"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
}  # fmt: skip
CONTROLLED = merged(FULL, {"controller": {"enabled": True, "cluster": "eu"}})


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    return Helm(tmp_path)


@pytest.mark.parametrize("values", [MINIMAL, FULL, CONTROLLED], ids=["minimal", "full", "controlled"])
def test_lint_finds_nothing(helm: Helm, values: Values) -> None:
    ran = helm.run("lint", "--strict", str(CHART), values=values)
    assert "0 chart(s) failed" in ran.stdout
    assert "[WARNING]" not in ran.stdout


def test_the_package_is_whole(helm: Helm, tmp_path: Path) -> None:
    """The archive renders what the folder does: the links to the published rights are files in it."""
    helm.run("package", str(CHART), "--destination", str(tmp_path))
    assert helm.render(FULL, tmp_path / "segue-0.1.0.tgz") == helm.render(FULL)


def environment(objects: list[Any]) -> dict[str, str]:
    """Return the variables of the worker's container; those from Secrets have the Secret's name and key."""
    [container] = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    found = {}
    for each in container["env"]:
        secret = each.get("valueFrom", {}).get("secretKeyRef")
        found[each["name"]] = each["value"] if secret is None else f"{secret['name']}/{secret['key']}"
    return found


def test_the_worker_reads_what_the_values_say(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable is a setting of the worker or of Temporal's SDK, and the worker accepts its value."""
    env = environment(helm.render(FULL))
    assert env.pop("SEGUE_SERVING_CREDENTIALS") == "credentials/credentials.json"
    assert env.pop("SEGUE_BY") == "chart"
    assert env.pop("SEGUE_POLICY") == "/etc/segue/policy/policy.yaml"  # a file of the pod
    assert env.pop("SEGUE_ENCRYPTION_KEYS") == "/etc/segue/encryption/keys.toml"  # also a client's: no setting
    settings = {name: value for name, value in env.items() if name.startswith("SEGUE_")}
    assert {name.removeprefix("SEGUE_").lower() for name in settings} <= Settings.model_fields.keys()
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    read = load_settings()
    assert (read.task_queue, read.health_address, read.sdk_metrics_address) == (
        "segue-eu",
        ":9000",  # of IPv4 and of IPv6: a cluster may have either
        "0.0.0.0:8081",
    )
    assert (read.log_level, read.log_format, read.pod_access) == ("DEBUG", "text", "direct")
    assert (read.max_concurrent_activities, read.graceful_shutdown_s) == (60, 60)
    assert read.otlp_endpoint == "http://collector:4317"
    assert read.supervised["Server"].resource == "servers.example.com/v1"
    assert (read.prometheus["default"].url, read.prometheus["far"].timeout_s) == (
        "http://prometheus.monitoring:9090",
        5,
    )
    assert (read.webhooks["smoke"].url, read.webhooks["smoke"].timeout_s) == ("https://ci:8443/q", 20)
    assert read.notifications["team"].model_dump() == {
        "address_file": Path("/etc/segue/notifications/team/address"), "title": "{target} {says}", "text": "{page}",
    }  # fmt: skip
    assert read.notifications["ci"].model_dump()["timeout_s"] == 7
    assert read.temporal_ui == "https://temporal.example"
    assert env["TEMPORAL_ADDRESS"] == "acme.tmprl.cloud:7233"
    assert (env["TEMPORAL_NAMESPACE"], env["TEMPORAL_TLS"], env["TEMPORAL_TLS_SERVER_NAME"]) == ("acme", "true", "acme")
    assert env["TEMPORAL_API_KEY"] == "temporal-key/api-key"


def test_each_file_that_a_setting_names_is_mounted(helm: Helm) -> None:
    """Neither a file is missing, nor is a key of a Secret mounted that no setting names."""
    objects = helm.render(FULL)
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    [volume] = [each for each in pod["volumes"] if each["name"] == "files"]
    paths = [
        item["path"] for source in volume["projected"]["sources"] for kind in source.values() for item in kind["items"]
    ]
    named = re.findall(r"/etc/segue/([^\"\s]+)", json.dumps(environment(objects)).replace("\\", ""))
    assert sorted(named) == sorted(paths)
    assert len(paths) == 12
    assert {"name": "files", "mountPath": "/etc/segue", "readOnly": True} in pod["containers"][0]["volumeMounts"]


def test_two_workers_spread_and_restricted(helm: Helm) -> None:
    """By default there are two workers; Service, budget and policy select exactly their pods."""
    objects = helm.render(FULL)
    deployment = only(helm.render(MINIMAL), "Deployment")
    assert deployment["spec"]["replicas"] == 2
    pod = deployment["spec"]["template"]["spec"]
    assert pod["topologySpreadConstraints"][0]["labelSelector"] == deployment["spec"]["selector"]
    assert pod["containers"][0]["image"] == "registry.example.com:5000/segue:0.1.0"
    assert pod["terminationGracePeriodSeconds"] == 45
    selector = only(objects, "Deployment")["spec"]["selector"]
    assert only(objects, "PodDisruptionBudget")["spec"] == {"maxUnavailable": 1, "selector": selector}
    everything = {name: selector["matchLabels"][f"app.kubernetes.io/{name}"] for name in ("name", "instance")}
    found = only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert found == {f"app.kubernetes.io/{name}": value for name, value in everything.items()}
    assert only(objects, "ServiceMonitor")["spec"]["selector"] == selector
    assert only(objects, "Service")["spec"]["selector"] == selector["matchLabels"]
    assert selector["matchLabels"].items() <= only(objects, "Service")["metadata"]["labels"].items()


VERSIONED: Values = {"versioning": {"enabled": True}}


def test_each_build_has_a_deployment_that_helm_keeps(helm: Helm) -> None:
    """The old one must outlive an upgrade, and none selects another's pods; Service and budget select all."""
    builds = [("0.2.0", "0-2-0"), ("0-2-0", None), ("0.2.0-rc1", None), ("0.2.0_RC1", None), ("a" * 60, None)]
    names = set()
    for build, name in builds:
        values = merged(merged(FULL, {"image": {"digest": "", "tag": build}}), VERSIONED)
        objects = helm.render(values)
        deployment = only(objects, "Deployment")
        about = deployment["metadata"]
        assert about["annotations"] == {"helm.sh/resource-policy": "keep", "segue.dev/build-id": build}
        env = environment(objects)
        assert (env["SEGUE_DEPLOYMENT_NAME"], env["SEGUE_BUILD_ID"]) == ("segue-eu", build)
        selector, labels = (deployment["spec"][k] for k in ("selector", "template"))
        mine = selector["matchLabels"]["segue.dev/build"]
        assert labels["metadata"]["labels"]["segue.dev/build"] == mine
        assert name in {None, mine} and len(mine) <= 63 and re.fullmatch("[a-z0-9]([-a-z0-9]*[a-z0-9])?", mine)
        assert "segue.dev/build" not in only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
        names.add(about["name"])
    assert len(names) == len(builds)
    digest = merged(merged(MINIMAL, {"image": {"digest": "sha256:" + "ab" * 32}}), VERSIONED)
    assert environment(helm.render(digest))["SEGUE_BUILD_ID"] == "abababababab"


def pods_that_run_once(objects: list[Any]) -> dict[str, Any]:
    """Return the pods of hooks and of the CronJob, by the name of what makes them."""
    found = {}
    for each in objects:
        spec = each["spec"]["jobTemplate"] if each["kind"] == "CronJob" else each
        if each["kind"] in {"CronJob", "Job"}:
            found[each["metadata"]["name"]] = spec["spec"]["template"]
        elif each["kind"] == "Pod":
            found[each["metadata"]["name"]] = each
    return found


def test_hooks_make_the_build_current_and_leave_nothing(helm: Helm) -> None:
    """Each runs a command that exists, restricted as the workers; no Service and no budget selects its pods."""
    objects = helm.render(merged(FULL, VERSIONED))
    hooks = {
        each["metadata"]["name"].removeprefix("rollouts-worker-"): each["metadata"]["annotations"]["helm.sh/hook"]
        for each in objects if "helm.sh/hook" in each["metadata"].get("annotations", {})
    }  # fmt: skip
    assert hooks == {
        "builds-current": "post-install,post-upgrade,post-rollback", "builds-remove": "pre-delete", "doctor": "test",
    }  # fmt: skip
    worker = only(objects, "Deployment")["spec"]["template"]["spec"]
    pods = pods_that_run_once(objects)
    assert len(pods) == 4
    for name, pod in pods.items():
        [container] = pod["spec"]["containers"]
        command: Any = typer.main.get_command(app)
        rest = container["args"]
        while rest and rest[0] in getattr(command, "commands", ()):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(name, list(rest))
        assert pod["spec"]["securityContext"] == worker["securityContext"]
        assert container["securityContext"] == worker["containers"][0]["securityContext"]
        assert container["image"] == worker["containers"][0]["image"]
        assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "helper"
        mounted = re.findall(r"/etc/segue/([^\"\s,}]+)", json.dumps(container["env"]).replace("\\", ""))
        [volume] = [each for each in pod["spec"]["volumes"] if each["name"] == "files"]
        sources = [kind for source in volume["projected"]["sources"] for kind in source.values()]
        paths = [item["path"] for kind in sources for item in kind["items"]]
        assert sorted(mounted) == sorted(paths), name
    account = pods["rollouts-worker-builds-current"]["spec"]["serviceAccountName"]
    assert account == "rollouts-worker-builds" != worker["serviceAccountName"]
    [role] = [each for each in objects if each["kind"] == "Role" and each["metadata"]["name"] == account]
    assert role["rules"] == [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list", "delete"]}]
    assert pods["rollouts-worker-doctor"]["spec"]["serviceAccountName"] == worker["serviceAccountName"]
    assert pods["rollouts-worker-doctor"]["spec"]["containers"][0]["args"] == ["doctor", "-n", "serving", "-n", "batch"]
    by_hand = helm.render(merged(merged(FULL, VERSIONED), {"versioning": {"retireSchedule": ""}}))
    assert [each for each in by_hand if each["kind"] == "CronJob"] == []
    assert pods_that_run_once(helm.render(MINIMAL)).keys() == {"segue-worker-doctor"}


def test_collections_of_nothing_are_empty(helm: Helm) -> None:
    """`prometheus:` with nothing below it is null in YAML, and Helm then leaves out the chart's own value."""
    names = ("prometheus", "webhooks", "notifications", "podLabels", "commonLabels", "tolerations")
    values = merged(MINIMAL, {**VERSIONED, "networkPolicy": {"enabled": True}})
    monitored = {"serviceMonitor": {"enabled": True}}
    nothing = {"image": {"digest": None}, "metrics": {"serviceMonitor": {"labels": None}}, **dict.fromkeys(names)}
    full = merged(values, {"metrics": monitored})
    assert helm.render(merged(full, nothing)) == helm.render(full)


def test_names_of_any_length_and_of_digits_are_names(helm: Helm) -> None:
    """Kubernetes takes 52 characters for a CronJob, 63 for a Job; a name such as 1234 is a string, and no number."""
    values = merged(merged(FULL, VERSIONED), {"nameOverride": "n" * 50, "rbac": {"namespaces": ["1234"]}})
    values |= {"policy": {"configMap": "11", "key": "p"}, "priorityClassName": "100", "serviceAccount": {"name": "007"}}
    objects = helm.render(values)
    jobs = [each for each in objects if each["kind"] in {"CronJob", "Job"}]
    assert max(len(each["metadata"]["name"]) - 11 * (each["kind"] == "Job") for each in jobs) <= 52

    def named(part: Any) -> Iterator[Any]:
        if isinstance(part, dict):
            yield from (v for k, v in part.items() if k.lower().endswith("name") or k == "namespace")
        for below in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            yield from named(below)

    found = [each for each in named(objects) if not isinstance(each, dict)]
    assert {"1234", "11", "100", "007"} <= set(found)
    assert [each for each in found if not isinstance(each, str)] == []


def published(name: str) -> list[Any]:
    role, _ = yaml.safe_load_all((ROOT / f"deploy/{name}.yaml").read_text())
    rules: list[Any] = role["rules"]
    return rules


def rules(objects: list[Any]) -> dict[str, list[Any]]:
    """Return the rules by kind, namespace and name of their role."""
    roles = [each for each in objects if each["kind"] in {"Role", "ClusterRole"}]
    for role in roles:
        bound = [e for e in objects if e["kind"] == f"{role['kind']}Binding" and e["metadata"] == role["metadata"]]
        assert [(e["roleRef"]["kind"], e["roleRef"]["name"]) for e in bound] == [
            (role["kind"], role["metadata"]["name"])
        ]
        account = only(objects, "ServiceAccount")["metadata"]
        subject = {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
        assert bound[0]["subjects"] == [subject]
    return {"/".join([e["kind"], e["metadata"].get("namespace", ""), e["metadata"]["name"]]): e["rules"] for e in roles}


def test_rights_are_the_published_ones(helm: Helm) -> None:
    """Each switch adds exactly the rules of its published file, in each namespace or in the whole cluster."""
    base, gates, serving = published("rbac"), published("rbac-gates"), published("rbac-serving")
    name = "segue-worker"
    assert rules(helm.render(MINIMAL)) == {f"Role/{place}/{name}": base for place in ("serving", "batch")}
    more = [{"apiGroups": ["example.com"], "resources": ["servers"], "verbs": ["get"]}]
    wide = {"namespaces": [], "clusterWide": True, "gates": True, "serving": True, "room": True, "extraRules": more}
    assert rules(helm.render(merged(MINIMAL, {"rbac": wide}))) == {
        f"ClusterRole//{name}": [*base, *gates, *serving, *more],
        f"ClusterRole//{name}-room": published("rbac-room"),
    }
    own = merged(MINIMAL, {"rbac": {"create": False}})
    assert rules(helm.render(own)) == {}


def test_the_controller_has_its_own_pods_rights_and_files(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is off by default. It follows the workers' namespaces by its own account, and mounts no secret of a worker."""
    before = helm.render(FULL)
    more = [each for each in helm.render(CONTROLLED) if each not in before]
    deployment, account = only(more, "Deployment"), only(more, "ServiceAccount")
    assert rules(more) == {
        f"Role/{place}/rollouts-controller": published("rbac-controller") for place in ("serving", "batch")
    }
    pod = deployment["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == account["metadata"]["name"] == "rollouts-controller"
    worker = only(before, "Deployment")["spec"]["selector"]["matchLabels"]
    assert not worker.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    [container] = pod["containers"]
    find(container["args"])
    doctor = pods_that_run_once(more)["rollouts-controller-doctor"]["spec"]
    assert doctor["serviceAccountName"] == pod["serviceAccountName"]
    assert doctor["containers"][0]["args"] == ["doctor", "-n", "serving", "-n", "batch", "--controller"]
    assert doctor["volumes"][1] == pod["volumes"][1]
    env = environment(more)
    assert (env["SEGUE_CLUSTER"], env["SEGUE_TASK_QUEUE"]) == ("eu", "segue-eu")
    named = re.findall(r"/etc/segue/(\S+)", " ".join(env.values()))
    sources = next(each for each in pod["volumes"] if each["name"] == "files")["projected"]["sources"]
    assert sorted(named) == sorted(item["path"] for each in sources for item in each["secret"]["items"])
    wide = helm.render(merged(CONTROLLED, {"rbac": {"namespaces": [], "clusterWide": True, "profiles": True}}))
    roles = {each["metadata"]["name"]: each["rules"] for each in wide if each["kind"] == "ClusterRole"}
    assert "rollouts-controller" in roles
    assert roles["rollouts-controller-profiles"] == published("rbac-profiles")


def test_what_a_platform_adds_to_pods_is_in_those_of_both(helm: Helm) -> None:
    """Sidecars, proxies and node pools are for the controller too: all that the values add to any pod."""
    rendered = [each for each in helm.render(CONTROLLED) if each["kind"] == "Deployment"]
    assert len(rendered) == 2
    for deployment in rendered:
        metadata, spec = (deployment["spec"]["template"][part] for part in ("metadata", "spec"))
        selector = deployment["spec"]["selector"]["matchLabels"]
        assert {**selector, **FULL["podLabels"], **FULL["commonLabels"]}.items() <= metadata["labels"].items()
        assert metadata["annotations"] == FULL["podAnnotations"]
        [spread] = spec["topologySpreadConstraints"]
        assert spread["labelSelector"] == {"matchLabels": selector}
        for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"):
            assert spec[name] == FULL[name], name
        [container] = spec["containers"]
        assert container["env"][-1:] == FULL["extraEnv"]
        assert container["volumeMounts"][-1:] == FULL["extraVolumeMounts"]
        assert spec["volumes"][-1:] == FULL["extraVolumes"]


def test_what_a_platform_adds_to_pods_is_in_those_that_run_once(helm: Helm) -> None:
    """A sidecar that the labels or annotations keep out would keep a hook from ending, and so an upgrade and a test."""
    pods = pods_that_run_once(helm.render(merged(CONTROLLED, VERSIONED)))
    assert len(pods) == 5
    for name, pod in pods.items():
        metadata, spec = pod["metadata"], pod["spec"]
        labels = {**FULL["podLabels"], **FULL["commonLabels"], "app.kubernetes.io/component": "helper"}
        assert labels.items() <= metadata["labels"].items(), name
        assert FULL["podAnnotations"].items() <= metadata["annotations"].items(), name
        for field in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"):
            assert spec[field] == FULL[field], (name, field)


def test_workers_and_controller_of_a_named_cluster_know_it(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both read the same setting: the workers poll for the cluster, and the controller sends its objects there."""
    rendered = helm.render(merged(CONTROLLED, {"cluster": {"name": "west", "default": True}}))
    environments = [environment([each]) for each in rendered if each["kind"] == "Deployment"]
    assert [each["SEGUE_CLUSTERS"] for each in environments] == ['{"west":{"default":true}}'] * 2
    assert [each["SEGUE_CLUSTER"] for each in environments if "SEGUE_CLUSTER" in each] == ["west"]
    monkeypatch.setenv("SEGUE_CLUSTERS", environments[0]["SEGUE_CLUSTERS"])
    assert load_settings().clusters == {"west": Access(default=True)}
    assert "SEGUE_CLUSTERS" not in environment(helm.render(MINIMAL))


def test_the_policies_of_orders_are_the_published_ones(helm: Helm) -> None:
    """They are for the controller, and off by default."""
    published = list(yaml.safe_load_all((CHART.parent / "admission/steering.yaml").read_text()))
    guarded = merged(CONTROLLED, {"controller": {"admission": True}})
    before = helm.render(CONTROLLED)
    assert [each for each in helm.render(guarded) if each not in before] == published
    # What the API server would refuse is left out before 1.36, and refused before 1.30.
    older = helm.run("template", "segue", str(CHART), "-n", "segue", "--kube-version", "1.35.2", values=guarded)
    made = [each for each in yaml.safe_load_all(older.stdout) if each and "Policy" in each["kind"]]
    assert [each for each in made if each in published] == published[2:]
    assert [each for each in made if "Mutating" in each["kind"]] == []
    errors = helm.run("template", "segue", str(CHART), "--kube-version", "1.29.9", values=guarded, expect=1).stderr
    assert "v1.29.9 has no ValidatingAdmissionPolicy" in errors and "set controller.admission=false" in errors


def test_the_chart_ships_the_definitions(helm: Helm) -> None:
    ran = helm.run("template", "segue", str(CHART), "--include-crds", "--kube-version", "1.36.3", values=MINIMAL)
    found = [e for e in yaml.safe_load_all(ran.stdout) if e and e["kind"] == "CustomResourceDefinition"]
    assert sorted(found, key=str) == sorted(map(definition, Definition), key=str)


def find(arguments: list[str]) -> None:
    """Check that the command line understands these arguments."""
    command = typer.main.get_command(app).commands[arguments[0]]  # type: ignore[attr-defined]
    command.make_context(arguments[0], [*arguments[1:]])


def test_the_network_policy_opens_what_the_settings_name(helm: Helm) -> None:
    """Out go DNS, the API server, every address of the settings, and requests to the targets' pods."""
    _, ports, pods, more = only(helm.render(FULL), "NetworkPolicy")["spec"]["egress"]
    assert sorted(each["port"] for each in ports["ports"]) == [443, 4317, 6443, 7233, 8443, 8444, 9090]
    [expression] = pods["to"][0]["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["serving", "batch"]
    assert more == FULL["networkPolicy"]["extraEgress"][0]


REFUSED: dict[str, tuple[Values, list[str]]] = {
    "no image": ({"image": {"repository": ""}}, ["image.repository is empty", "--set image.repository="]),
    "tag in the repository": ({"image": {"repository": "acme/segue:1"}}, ["/image/repository", "acme/segue:1"]),
    "no address": ({"temporal": {"address": ""}}, ["temporal.address is empty", "--set temporal.address="]),
    "address without a port": ({"temporal": {"address": "temporal"}}, ["/temporal/address", ":[0-9]+"]),
    "misspelt": ({"replicas": 3}, ["additional properties 'replicas' not allowed"]),
    "misspelt below": ({"rbac": {"namespace": "x"}}, ["/rbac", "additional properties 'namespace' not allowed"]),
    "wrong type": ({"replicaCount": "two"}, ["/replicaCount", "got string, want integer"]),
    "wrong choice": ({"worker": {"logLevel": "info"}}, ["/worker/logLevel", "'INFO'"]),
    "no namespace": ({"rbac": {"namespaces": []}}, ["rbac.namespaces is empty", "rbac.clusterWide=true"]),
    "both": ({"rbac": {"clusterWide": True}}, ["rbac.clusterWide is true", "set only one of them"]),
    "no account": ({"serviceAccount": {"create": False}}, ["serviceAccount.name is empty", "name the ServiceAccount"]),
    "proxy": ({"worker": {"podAccess": "proxy"}}, ["worker.podAccess is proxy", "set rbac.serving=true"]),
    "a password in an address": ({"prometheus": {"x": {"url": "http://u:p@x"}}}, ["/prometheus/x/url"]),
    "a token in an address": ({"prometheus": {"x": {"url": "http://x/?token=s"}}}, ["/prometheus/x/url"]),
    "too few slots": ({"worker": {"maxConcurrentActivities": 5}}, ["/worker/maxConcurrentActivities", "10"]),
    "more than a day": ({"worker": {"gracefulShutdownSeconds": 90_000}}, ["/worker/gracefulShutdownSeconds"]),
    "no scheme": ({"worker": {"otlpEndpoint": "collector:4317"}}, ["/worker/otlpEndpoint", "collector:4317"]),
    "a webhook without a secret": ({"webhooks": {"x": {"url": "http://x"}}}, ["/webhooks/x", "missing property"]),
    "a version twice": (
        merged(VERSIONED, {"extraEnv": [{"name": "SEGUE_BUILD_ID", "value": "1"}]}),
        ["extraEnv has SEGUE_BUILD_ID", "set versioning.deploymentName or versioning.buildId"],
    ),
    "a name with a dot": ({"versioning": {"deploymentName": "a.b"}}, ["/versioning/deploymentName", "'a.b'"]),
    "a schedule": ({"versioning": {"retireSchedule": "hourly"}}, ["/versioning/retireSchedule", "'hourly'"]),
    "a receiver of nothing": ({"notifications": {"x": {}}}, ["notifications.x", "addressSecret"]),
    "a receiver of both": (
        {"notifications": {"x": {"url": "http://x", "addressSecret": SECRET}}},
        ["notifications.x", "addressSecret alone"],
    ),
    "a template of a webhook": (
        {"notifications": {"x": {"url": "http://x", "secret": SECRET, "text": "{page}"}}},
        ["notifications.x is a webhook", "leave out title and text"],
    ),
    "address as a URL": ({"temporal": {"address": "http://temporal:7233"}}, ["/temporal/address", "http://temporal"]),
    "no tag": ({"image": {"tag": "v1 beta"}}, ["/image/tag", "'v1 beta'"]),
    "policies without a controller": (
        {"controller": {"admission": True}}, ["controller.admission is true", "set controller.enabled=true too"],
    ),
    "profiles without a controller": (
        {"rbac": {"profiles": True}}, ["rbac.profiles is true", "set controller.enabled=true too"],
    ),
    "a default without a name": ({"cluster": {"default": True}}, ["cluster.default is true", "name the cluster"]),
    "a build without versioning": (
        {"versioning": {"buildId": "1"}}, ["versioning.buildId is set", "set versioning.enabled=true"],
    ),
    "a label of the chart": (
        {"commonLabels": {"app.kubernetes.io/name": "a"}}, ["commonLabels has app.kubernetes.io/name", "leave it out"],
    ),
    "a section of nothing": ({"worker": None}, ["missing property 'worker'"]),
    "a value of nothing": ({"worker": {"podAccess": None}}, ["/worker", "missing property 'podAccess'"]),
    "one port": ({"metrics": {"sdk": True}, "worker": {"healthPort": 8081}}, ["healthPort is 8081", "another port"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_are_refused(helm: Helm, name: str) -> None:
    """The message names the value, and what to write instead."""
    values, expected = REFUSED[name]
    message = helm.refusal(merged(MINIMAL, values))
    assert [text for text in expected if text not in message] == [], message


# --- no Helm needed --------------------------------------------------------------------------------------


def test_readme_shows_the_values() -> None:
    page = chart_values.README.read_text()
    assert page == chart_values.with_table(page), "run: .venv/bin/python tests/support/chart_values.py"


def test_each_value_is_described_and_in_the_schema() -> None:
    """A value without description, or one that the schema does not know or knows alone, is a mistake of ours."""
    text = (CHART / "values.yaml").read_text()
    values, schema = yaml.safe_load(text), json.loads((CHART / "values.schema.json").read_text())
    known = {each.path for each in chart_values.described(text)}
    assert list(chart_values.leaves(values, known)) == []

    def compare(given: Any, wanted: Any, path: str) -> None:
        wanted = schema["$defs"][wanted["$ref"].split("/")[-1]] if "$ref" in wanted else wanted
        if "properties" in wanted:
            assert given.keys() == wanted["properties"].keys() - {"global"}, path
            assert wanted["additionalProperties"] is False
            for key, value in given.items():
                compare(value, wanted["properties"][key], f"{path}.{key}")

    compare(values, schema, "values")


def test_the_chart_has_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
