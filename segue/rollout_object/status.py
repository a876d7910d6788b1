"""The status of a Rollout in Kubernetes. Its conditions follow kstatus: Ready, Reconciling, Stalled."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from segue.rollout_object.orders import ORDERS, AnnotatedOrder

MAX_TEXT = 1024
"""The most characters of a text in the status."""


class Shown(BaseModel):
    """A part of the status, with Kubernetes' notation of names."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Kind(StrEnum):
    """The types of conditions."""

    ACCEPTED = "Accepted"
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class Condition(Shown):
    """One condition, as ``metav1.Condition``."""

    type: Kind
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: str
    observed_generation: int


class ObjectSide(Shown):
    """The replica counts of one side."""

    replicas: int = 0
    ready: int = 0


class Marks(Shown):
    """Hashes of the parts of a spec, as they are written: a release of Segue with other defaults changes none."""

    change: str = Field(description="Target and change.")
    strategy: str
    rules: str = Field(description="Everything else, and the annotation segue.dev/retry.")


class Handled(Marks):
    """What the latest rollout of the object was started or retargeted with."""

    generation: int = Field(description="The generation of the object at that time.")

    def is_for(self, marks: Marks) -> bool:
        """Whether these are the marks of what was handled."""
        return all(getattr(self, name) == getattr(marks, name) for name in Marks.model_fields)


class Answered(Shown):
    """An order by an annotation, and what came of it."""

    verb: str
    value: str = Field(description="The value of the annotation.")
    user: str = Field(description="Who wrote it, as the API server authenticated it.")
    taken: bool = Field(description="Whether the rollout took it.")
    answer: str = Field(description="What happened then, or why not.")


class ObjectStatus(Shown):
    """The whole status. Only ``handled``, ``workflowId``, ``runId``, ``paused`` and so on guide the controller."""

    observed_generation: int = Field(default=0, description="The generation that this status is about.")
    conditions: tuple[Condition, ...] = ()
    phase: str = Field(default="", description="Where the rollout is, in one word.")
    target: str = Field(default="", description="Namespace and name of the target.")
    change: str = Field(default="", description="The change, in one line.")
    outcome: str = Field(default="", description="How the latest rollout ended; empty while it runs.")
    reason: str = Field(default="", description="The reason of the phase.")
    waiting_for: str = Field(default="", description="What the rollout waits for.")
    replicas: int = Field(default=0, description="Replicas that the target requests.")
    floor: int = Field(default=0, description="The fewest ready replicas that the rollout allows.")
    old: ObjectSide = ObjectSide()
    new: ObjectSide = ObjectSide()
    rollout: str = Field(
        default="", description="Names the rollout, for the annotations segue.dev/abort, promote, settle and scale."
    )
    approval: str = Field(
        default="",
        description="Names the pending approval, for segue.dev/approve and reject; empty if none is pending.",
    )
    pause: str = Field(
        default="", description="Names the pause or failure that segue.dev/resume ends; empty if there is none."
    )
    orders: tuple[Answered, ...] = Field(
        default=(), description="The latest order by each of these annotations, and what came of it."
    )
    version: str = Field(default="", description="The pod template that the latest rollout left, as a fingerprint.")
    workflow_id: str = Field(default="", description="The id of the rollout's workflow in Temporal.")
    run_id: str = Field(default="", description="The run of that workflow.")
    handled: Handled | None = None
    starting: int = Field(default=0, description="The generation that starts, written before the start; else 0.")
    retargeting: int = Field(
        default=0, description="The generation that a retarget is sent for, written before it is sent; else 0."
    )
    paused: bool = Field(default=False, description="Whether spec.paused has paused the rollout under way.")
    aborted: bool = Field(default=False, description="Whether the deletion has aborted the rollout under way.")
    missing: bool = Field(default=False, description="Whether the start was refused because something does not exist.")
    retries: int = Field(default=0, description="How often it started again by itself after such a refusal.")
    refused_generation: int = Field(
        default=0, description="The generation whose edit the rollout under way refused; it starts after its end."
    )

    def condition(self, kind: Kind) -> Condition | None:
        """Return the condition of this type; None if it was never written."""
        return next((each for each in self.conditions if each.type == kind), None)

    def has_answered(self, order: AnnotatedOrder) -> bool:
        """Whether this order has its answer."""
        given = (order.verb, order.value, order.user)
        return any((each.verb, each.value, each.user) == given for each in self.orders)

    def answering(self, order: AnnotatedOrder, answer: str, *, taken: bool) -> Self:
        """Return a copy with the answer to an order, which replaces the one to the former order of this verb."""
        now = Answered(verb=order.verb, value=order.value, user=order.user, taken=taken, answer=answer[:MAX_TEXT])
        return self.but(orders=(*(each for each in self.orders if each.verb != order.verb), now))

    def without_removed(self, orders: Iterable[AnnotatedOrder]) -> Self:
        """Return a copy without the answers to unknown annotations that are gone: people may invent many."""
        there = {*ORDERS, *(each.verb for each in orders)}
        return self.but(orders=tuple(each for each in self.orders if each.verb in there))

    def but(self, **changes: object) -> Self:
        """Return a copy with these fields changed."""
        return self.model_copy(update=changes)
