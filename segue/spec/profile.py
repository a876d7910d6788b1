"""The name of a profile in a spec; ``segue/spec/resolving.py`` resolves it when the file is read."""

from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from segue.spec.base import Model, wrong
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


class Profile(Model):
    """The model server that the target runs. Its profile gives fields of the spec; the spec's own lie over them."""

    name: ProfileName = Field(strict=False, description="`segue profiles NAME` prints what it gives.")
    model: ModelName = Field(description="The name by which requests ask for the model.")

    @model_validator(mode="before")
    @classmethod
    def _names_a_model(cls, data: Any) -> Any:
        name = data.get("name") if isinstance(data, dict) and "model" not in data else data
        if name in [*ProfileName]:
            raise wrong("model", None, "is missing", f"write `profile: {{name: {name}, model: NAME}}`")
        return data
