"""What is measured on the trained network beside its scores."""

from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from core.spec.base import Flag, Spec


class InputShift(Spec):
    """The test inputs, as the network is given them (scaled), times `scale` plus `shift`."""

    scale: Annotated[float, Field(strict=True, ge=-1000.0, le=1000.0)] = 1.0
    shift: Annotated[float, Field(strict=True, ge=-1000.0, le=1000.0)] = 0.0
    """1 is the way from black to white of images with scaling `unit`, one deviation with `standardize`."""

    @property
    def label(self) -> str:
        """The end of its series' names, for instance `x0.5+0`."""
        return f"x{self.scale:g}{self.shift:+g}"


class EvaluationSpec(Spec):
    input_shifts: Annotated[tuple[InputShift, ...], Field(max_length=16)] = ()
    """After training, the test scores of shifted inputs too: as served (`test/accuracy_x0.5+0`), and by the
    statistics of each batch (`bn/batch_accuracy_x0.5+0`)."""

    keep_answers: Flag = False
    """The answers on the test split, probabilities or values in the target's units, are kept in a file that
    `result.answers` names: what the report of a comparison with `ensemble` averages."""

    @model_serializer(mode="wrap")
    def _says_only_that_they_are_kept(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A spec that keeps none has the digest that it had before any could be kept."""
        return {name: value for name, value in write(self).items() if name != "keep_answers" or value}

    @model_validator(mode="after")
    def _each_once(self) -> "EvaluationSpec":
        labels = [one.label for one in self.input_shifts]
        if len(set(labels)) < len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise ValueError(f"has the shift {twice} twice: leave one out")
        return self
