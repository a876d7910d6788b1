"""The name of a profile in a spec; ``segue/spec/resolving.py`` resolves it when the file is read."""

from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from segue.spec.base import Model, ObjectName, wrong
from segue.spec.serving import ModelName


class ProfileName(StrEnum):
    """The built-in profiles: a file each in ``segue/profiles/``."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TGI = "tgi"
    LLAMA_CPP = "llamacpp"
    TRITON = "triton"
    TORCHSERVE = "torchserve"
    TFSERVING = "tfserving"
    MLSERVER = "mlserver"
    KSERVE = "kserve"


def perhaps(name: str) -> str:
    """Return the built-in profile that a mistyped name may mean, as the end of a sentence."""
    near = get_close_matches(name.lower(), [*ProfileName], n=1, cutoff=0.75)
    return f", perhaps {near[0]}" if near else ""


class BuiltIn(Model):
    """A built-in profile, which a profile of yours builds on."""

    name: ProfileName = Field(strict=False, description="`segue profiles NAME` prints what it gives.")
    model: ModelName | None = Field(
        default=None, description="The model's name in requests. A Rollout can name another one."
    )

    @model_validator(mode="before")
    @classmethod
    def _is_built_in(cls, data: Any) -> Any:
        name = data.get("name") if isinstance(data, dict) else None
        if isinstance(name, str) and name not in [*ProfileName]:
            why = "is not a built-in profile, and a profile builds only on a built-in one"
            raise wrong("name", name, why, f"write one of {', '.join(ProfileName)}, or leave the profile out")
        return data


class Profile(Model):
    """A profile: it gives fields of the spec; fields that the spec sets override them."""

    name: ObjectName = Field(
        description="A built-in profile of a model server (`segue profiles` lists them), or one of yours: a "
        "RolloutProfile in the target's namespace, or a ClusterRolloutProfile."
    )
    model: ModelName | None = Field(
        default=None,
        description="The model's name in requests. Required for a built-in profile, and for one of yours that builds "
        "on a built-in one without a model.",
    )

    @property
    def is_built_in(self) -> bool:
        """Whether Segue itself has it."""
        return self.name in [*ProfileName]

    @model_validator(mode="before")
    @classmethod
    def _names_a_model(cls, data: Any) -> Any:
        name = data.get("name") if isinstance(data, dict) and data.get("model") is None else data
        if isinstance(name, str) and name in [*ProfileName]:
            raise wrong("model", None, "is missing", f"write `profile: {{name: {name}, model: NAME}}`")
        return data
