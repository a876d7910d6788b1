"""Every right that a worker or a controller uses on the API server, and what needs it.

This list makes ``deploy/rbac*.yaml`` (``make rights``), the check before each start, and those of ``segue doctor``.
A right that no use needs is optional: without it, Segue reports what it could not check or explain.
"""

import re
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from segue.spec import KINDS as TARGETS
from segue.spec import Autoscaler, Change, PairTarget, Rules, Target
from segue.spec.traffic import ByRoute

SERVICE_ACCOUNT = ("segue", "segue-worker")
"""Namespace and name of the worker's ServiceAccount."""


class Use(StrEnum):
    """What needs a right: a kind of target, or a part of the spec."""

    DEPLOYMENT = "Deployment"
    PAIR = "DeploymentPair"
    STATEFUL_SET = "StatefulSet"
    LEADER_WORKER_SET = "LeaderWorkerSet"
    SUPERVISED = "Supervised"
    HOLD = "autoscaler: hold"
    CONFIG_MAPS = "change.configMaps"
    DRAIN = "drain"
    SERVICE = "strategy.traffic.service"
    ROUTE = "strategy.traffic.route"
    POOLS = "strategy.traffic.pools"
    JOB = "gates.job"


KINDS = tuple(map(Use, TARGETS))
_ROLLED_BY_REPLICASETS = (Use.DEPLOYMENT, Use.PAIR)
_NUMBERED = (Use.STATEFUL_SET, Use.LEADER_WORKER_SET)
_HELD = ("get", "list", "watch", "patch")


class Right(NamedTuple):
    """One verb on one resource; a subresource is written ``pods/status``."""

    verb: str
    group: str
    resource: str

    def __str__(self) -> str:
        return f"{self.verb} {named(self.group, self.resource)}"


def grants(rules: Iterable[Mapping[str, Any]], right: Right) -> bool:
    """Whether one of these rules of the API server (a SelfSubjectRulesReview) grants a right to all objects."""
    wanted = {"verbs": right.verb, "apiGroups": right.group, "resources": right.resource}
    return any(
        not rule.get("resourceNames")
        and all({value, "*"} & set(rule.get(name) or ()) for name, value in wanted.items())
        for rule in rules
    )


class AccessRule(NamedTuple):
    """One rule of a role. ``uses`` need it; with none, it is optional. ``note`` explains it in the manifest."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    uses: tuple[Use, ...] = ()
    note: str = ""

    @property
    def rights(self) -> tuple[Right, ...]:
        """Its rights, one for each resource and verb."""
        return tuple(Right(verb, self.group, resource) for resource in self.resources for verb in self.verbs)


_NOT_IN_NAMES = re.compile(r"[^a-z0-9.-]+")


class Role(NamedTuple):
    """One manifest of ``deploy/``. The rights hold in a namespace, or in the whole cluster."""

    key: str
    file: str
    name: str
    head: str
    rules: tuple[AccessRule, ...]
    cluster_wide: bool = False
    account: tuple[str, str] = SERVICE_ACCOUNT
    """Namespace and name of the ServiceAccount that gets it."""

    def command(self, namespace: str) -> str:
        """Return the command that grants it."""
        where = "" if self.cluster_wide else f" -n {namespace}"
        return f"kubectl apply{where} -f {self.file}"

    def binding_command(self, namespace: str, user: str) -> str:
        """Return the command that binds it, once applied, to a user who is not its ServiceAccount."""
        scope, where = ("cluster", "") if self.cluster_wide else ("", f" -n {namespace}")
        binding = f"{self.name}-{_NOT_IN_NAMES.sub('-', user.lower()).strip('-.')}"
        role = f"--{scope}role={self.name}"
        return f"kubectl create {scope}rolebinding{where} {binding} {role} --user={shlex.quote(user)}"


BASE = Role(
    "base",
    "deploy/rbac.yaml",
    "segue-worker",
    """\
The minimum rights of a worker in each namespace whose targets it may roll.
  kubectl apply -n serving -f deploy/rbac.yaml
The worker's ServiceAccount is `segue-worker` in namespace `segue`; if yours differs, change the subject.""",
    (
        AccessRule("", ("pods",), ("list", "watch"), KINDS),
        AccessRule("apps", ("deployments",), _HELD, _ROLLED_BY_REPLICASETS,
             "For targets of kind Deployment and DeploymentPair."),
        AccessRule("apps", ("replicasets",), ("list", "watch", "patch"), _ROLLED_BY_REPLICASETS,
             "Patched by settle, and by undo after a retarget."),
        AccessRule("apps", ("deployments",), ("create", "delete"), (Use.PAIR,),
             "Only for targets of kind DeploymentPair: Segue creates the new Deployment, and undo removes it."),
        AccessRule("", ("events",), ("list",), (),
             "For failure messages: a probe's message, a volume that cannot be attached, a StatefulSet's pod that "
             "cannot be created."),
        AccessRule("policy", ("poddisruptionbudgets",), ("list",), (),
             "What lint reads before a start, besides the target. Without these rights it reports which rules it "
             "could not check."),
        AccessRule("autoscaling", ("horizontalpodautoscalers",), ("list",), (Use.HOLD,)),
        AccessRule("", ("resourcequotas", "persistentvolumeclaims"), ("list",)),
        AccessRule("", ("configmaps",), ("list",), (),
             "Whether somebody changed a ConfigMap of the target during its rollout: the report says so."),
        AccessRule("", ("namespaces",), ("get",), (),
             "Whether this namespace is being deleted; and its labels, for a policy with `namespaceLabels`."),
        AccessRule("leaderworkerset.x-k8s.io", ("leaderworkersets",), _HELD, (Use.LEADER_WORKER_SET,),
             "The next rules only for StatefulSets and LeaderWorkerSets: to read their versions, and to delete pods of "
             "a bad version that would block the rollback."),
        AccessRule("apps", ("statefulsets",), ("get", "list", "watch"), _NUMBERED),
        AccessRule("apps", ("statefulsets",), ("patch",), (Use.STATEFUL_SET,)),
        AccessRule("apps", ("controllerrevisions",), ("list", "watch", "patch"), _NUMBERED),
        AccessRule("", ("pods",), ("delete",), _NUMBERED),
        AccessRule("apps", ("controllerrevisions",), ("create", "delete"), (Use.LEADER_WORKER_SET,),
             "Only for LeaderWorkerSets: their controller drops versions without replicas. Segue keeps them for "
             "history and undo."),
        AccessRule("serving.kserve.io", ("inferenceservices", "servingruntimes"), _HELD, (Use.SUPERVISED,),
             "Only for targets of kind Supervised: list the resources that Segue rolls this way."),
        AccessRule("autoscaling", ("horizontalpodautoscalers",), ("patch",), (Use.HOLD,),
             "Only for specs with `autoscaler: hold`."),
        AccessRule("", ("configmaps",), ("list", "create", "delete"), (Use.CONFIG_MAPS,),
             "Only for specs with `change.configMaps`: Segue creates copies and prunes old ones."),
        AccessRule("", ("pods/status",), ("patch",), (Use.DRAIN,),
             "The next two only for specs with `drain`: replicas without a preStop hook leave their Services before "
             "they stop."),
        AccessRule("discovery.k8s.io", ("endpointslices",), ("list",), (Use.DRAIN,)),
        AccessRule("", ("services",), ("get",), (Use.SERVICE, Use.ROUTE),
             "Only for specs with `traffic`: Segue switches a Service or writes the weights of an HTTPRoute."),
        AccessRule("", ("services",), ("list", "watch", "patch"), (Use.SERVICE,)),
        AccessRule("gateway.networking.k8s.io", ("httproutes",), _HELD, (Use.ROUTE, Use.POOLS)),
        AccessRule("inference.networking.k8s.io", ("inferencepools",), ("get",), (Use.POOLS,)),
        AccessRule("gateway.networking.k8s.io", ("grpcroutes",), ("list",), (),
             "Only to warn of GRPCRoutes that also send traffic to the old side of an HTTPRoute."),
    ),
)  # fmt: skip

SERVING = Role(
    "serving",
    "deploy/rbac-serving.yaml",
    "segue-worker-serving",
    """\
Optional, in addition to rbac.yaml, in namespaces whose rollouts use `serving` or `loadFailures`.
  kubectl apply -n serving -f deploy/rbac-serving.yaml""",
    (
        AccessRule("", ("pods/proxy",), ("get", "create", "update"), (),
             "By the request's method: GET, POST, PUT. Needed only where the worker calls pods through the API server "
             "(SEGUE_POD_ACCESS=proxy, for a worker outside the cluster). It lets the worker send requests to every "
             "port of every pod in the namespace."),
        AccessRule("", ("pods/log",), ("get",), (), "Adds the last log lines of a crash to failure messages."),
    ),
)  # fmt: skip

GATES = Role(
    "gates",
    "deploy/rbac-gates.yaml",
    "segue-worker-gates",
    """\
Optional: only for specs with gates of the kind `job`. The worker then creates the pods that a spec defines, in this
namespace, with any of its service accounts. So whoever may start rollouts can run any program there.
  kubectl apply -n serving -f deploy/rbac-gates.yaml""",
    (AccessRule("batch", ("jobs",), ("create", "get", "list", "delete"), (Use.JOB,)),),
)

ROOM = Role(
    "room",
    "deploy/rbac-room.yaml",
    "segue-worker-room",
    """\
Optional: lets the worker count the free room on the nodes before it adds a replica. It grants reading the nodes and
pods of the whole cluster. Without it, the worker learns from a pending replica that there is no room.
  kubectl apply -f deploy/rbac-room.yaml""",
    (
        AccessRule("", ("nodes", "pods"), ("list", "watch"), (),
             "The worker keeps one summary of them. Without `watch` it lists all of them every few seconds."),
        AccessRule("scheduling.k8s.io", ("priorityclasses",), ("list",), (),
             "To see whether the new version has a higher priority than the old one. If so, a replica is added only "
             "when it fits."),
    ),
    cluster_wide=True,
)  # fmt: skip

ROLES = {role.key: role for role in (BASE, SERVING, GATES, ROOM)}
"""The roles of a worker."""

CONTROLLER = Role(
    "controller",
    "deploy/rbac-controller.yaml",
    "segue-controller",
    """\
Optional: the rights of `segue controller`, in each namespace whose Rollout objects it follows. It needs no right on
targets: the workers have those.
  kubectl apply -n serving -f deploy/rbac-controller.yaml
Its ServiceAccount is `segue-controller` in namespace `segue`. For all namespaces, put the rules into a ClusterRole.""",
    (
        AccessRule("segue.dev", ("rollouts",), ("get", "list", "watch", "patch"), (),
             "`patch` adds and removes the finalizer."),
        AccessRule("segue.dev", ("rollouts/status",), ("patch",)),
        AccessRule("segue.dev", ("rolloutprofiles",), ("get",), (), "For Rollouts that name a profile of yours."),
        AccessRule("", ("events",), ("create",), (), "For events about Rollouts and their targets. Without it: none."),
    ),
    account=("segue", "segue-controller"),
)  # fmt: skip

CONTROLLER_NEEDS = tuple(
    right for rule in CONTROLLER.rules if rule.resources[0] in {"rollouts", "rollouts/status"} for right in rule.rights
)
"""The rights without which a controller does nothing; its others are optional."""

PROFILES = Role(
    "profiles",
    "deploy/rbac-profiles.yaml",
    "segue-controller-profiles",
    """\
Optional: lets `segue controller` read ClusterRolloutProfiles. Without it, Rollouts use only built-in profiles and the
RolloutProfiles of their own namespace.
  kubectl apply -f deploy/rbac-profiles.yaml""",
    (AccessRule("segue.dev", ("clusterrolloutprofiles",), ("get",)),),
    cluster_wide=True,
    account=("segue", "segue-controller"),
)

PUBLISHED = {**ROLES, CONTROLLER.key: CONTROLLER, PROFILES.key: PROFILES}
"""The roles of ``deploy/``."""


# --- what a rollout needs --------------------------------------------------------------------------------


def uses_of(target: Target, rules: Rules, change: Change) -> frozenset[Use]:
    """Return what needs rights in a rollout."""
    traffic = rules.strategy.traffic
    parts = {
        Use.HOLD: rules.autoscaler is Autoscaler.HOLD and not isinstance(target, PairTarget),
        Use.CONFIG_MAPS: bool(change.config_maps),
        Use.DRAIN: rules.drain is not None,
        Use.SERVICE: traffic is not None and not isinstance(traffic, ByRoute),
        Use.ROUTE: isinstance(traffic, ByRoute) and traffic.services is not None,
        Use.POOLS: isinstance(traffic, ByRoute) and traffic.pools is not None,
        Use.JOB: any(gate.job is not None for gate in rules.gates),
    }
    return frozenset({Use(target.kind), *(use for use, needs in parts.items() if needs)})


def needed(uses: Iterable[Use], supervised: str = "") -> tuple[Right, ...]:
    """Return the rights that these uses need, each once, in the list's order.

    ``supervised`` is the ``PLURAL.GROUP/VERSION`` of the one custom resource that is rolled; empty for all known ones.
    """
    wanted = set(uses)
    found: dict[Right, None] = {}
    for role in ROLES.values():
        for rule in role.rules:
            if wanted.intersection(rule.uses):
                found |= dict.fromkeys(_only(rule, supervised).rights)
    return tuple(found)


def _only(rule: AccessRule, supervised: str) -> AccessRule:
    """Return the rule of custom resources for just the one that is rolled, which settings may have added."""
    if Use.SUPERVISED not in rule.uses or rule.uses == KINDS or not supervised:
        return rule
    plural, _, rest = supervised.partition(".")
    return rule._replace(group=rest.partition("/")[0], resources=(plural,))


# --- what a person reads ---------------------------------------------------------------------------------

_DENIED = re.compile(
    r'cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)


def named(group: str, resource: str) -> str:
    """Return a resource as kubectl names it, such as ``deployments.apps`` or ``pods/status``."""
    plural, slash, part = resource.partition("/")
    return f"{plural}{'.' if group else ''}{group}{slash}{part}"


def described(rights: Sequence[Right]) -> str:
    """Return rights in one line, such as ``get, patch deployments.apps; list pods``."""
    verbs: dict[str, list[str]] = {}
    for right in rights:
        verbs.setdefault(named(right.group, right.resource), []).append(right.verb)
    return "; ".join(f"{', '.join(each)} {resource}" for resource, each in verbs.items())


def role_of(right: Right, *, cluster_wide: bool = False) -> Role | None:
    """Return the role that grants a right; None if no published role does."""
    for role in PUBLISHED.values():
        if role.cluster_wide is cluster_wide and any(right in rule.rights for rule in role.rules):
            return role
    return None


def commands(rights: Sequence[Right], namespace: str) -> str:
    """Return the commands that grant rights. A right that no published role has is to be added to the base role."""
    roles = dict.fromkeys(role_of(right) or BASE for right in rights)
    extra = [right for right in rights if role_of(right) is None]
    more = f" (after you add to it: {described(extra)})" if extra else ""
    return " && ".join(role.command(namespace) for role in roles) + more


class Grant(NamedTuple):
    """A published role that grants what somebody lacks."""

    role: Role
    namespace: str
    """Where; empty for the whole cluster."""
    user: str = ""
    """Who lacks it; empty for its ServiceAccount."""

    def __str__(self) -> str:
        where = " in this namespace" if self.namespace else ""
        return f"{self.role.file}'s role{where}: {self.command}"

    @property
    def command(self) -> str:
        """The command that grants it."""
        applied = self.role.command(self.namespace)
        is_bound = self.user in {"", self.role.account[1]}  # the manifest binds it
        return applied if is_bound else f"{applied} && {self.role.binding_command(self.namespace, self.user)}"


def grant_for(denial: str, user: str = "") -> Grant | None:
    """Return what grants the right that the API server denied, by its message; None if no published role does."""
    found = _DENIED.search(denial)
    if found is None:
        return None
    namespace = found["namespace"]
    role = role_of(Right(found["verb"], found["group"], found["resource"]), cluster_wide=namespace is None)
    return Grant(role, namespace or "", user) if role else None


# --- manifests -------------------------------------------------------------------------------------------


def manifest(role: Role, service_account: tuple[str, str] | None = None) -> str:
    """Return the YAML of a role and its binding, by default to the role's own ServiceAccount."""
    namespace, account = service_account or role.account
    prefix = "Cluster" if role.cluster_wide else ""
    rules = "\n".join(_rule(rule) for rule in role.rules)
    return f"""\
{_comment(role.head)}
# Made from segue/rights.py by `make rights`.
apiVersion: rbac.authorization.k8s.io/v1
kind: {prefix}Role
metadata:
  name: {role.name}
rules:
{rules}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {prefix}RoleBinding
metadata:
  name: {role.name}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {prefix}Role
  name: {role.name}
subjects:
  - kind: ServiceAccount
    name: {account}
    namespace: {namespace}
  - kind: User            # the local stack's {role.account[1].removeprefix("segue-")}, by client certificate
    apiGroup: rbac.authorization.k8s.io
    name: {role.account[1]}
"""


def _rule(rule: AccessRule) -> str:
    note = _comment(rule.note, "  ") + "\n" if rule.note else ""
    group = rule.group or '""'
    return (
        f"{note}  - apiGroups: [{group}]\n"
        f"    resources: [{', '.join(rule.resources)}]\n"
        f"    verbs: [{', '.join(rule.verbs)}]"
    )


def _comment(text: str, indent: str = "") -> str:
    width = 118 - len(indent)
    return "\n".join(f"{indent}# {line}" for written in text.splitlines() for line in _lines(written, width))


def _lines(text: str, width: int) -> list[str]:
    return [text] if text.startswith(" ") else textwrap.wrap(text, width)
