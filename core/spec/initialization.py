"""How weights start."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from core.spec.base import Spec


class InitializationSpec(Spec):
    """How weights start; biases start at 0, gamma and beta as the normalization says."""

    kind: Literal["normal", "uniform", "xavier_normal", "xavier_uniform", "he_normal", "he_uniform"] = "he_normal"
    """`normal`: N(0, scale²); `uniform`: U(-scale, scale); the others draw with the standard
    deviation of Glorot & Bengio (2010) or He et al. (2015), times scale."""
    scale: Annotated[float, Field(strict=True, gt=0.0, le=1e6)] = 1.0
    """Standard deviation (`normal`), bound (`uniform`), or a factor on the derived one. Default: 0.1
    for `normal` and `uniform`, else 1."""

    @model_validator(mode="before")
    @classmethod
    def _write_out_scale_of_the_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("kind") in ("normal", "uniform"):
            return {"scale": 0.1} | value
        return value
