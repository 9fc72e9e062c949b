"""Augmentation: training images that are changed a little, otherwise at every step."""

from typing import Annotated

from pydantic import Field, model_validator

from core.spec.base import PositiveInt, Spec

Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]


class AffineSpec(Spec):
    """Turned, moved, scaled and sheared about the middle, bilinearly; each by as much, up or down, at most."""

    degrees: Annotated[float, Field(strict=True, ge=0.0, le=180.0)] = 10.0
    translate: Share = 0.1
    """Of the image's height and width."""
    scale: Annotated[float, Field(strict=True, ge=0.0, lt=1.0)] = 0.1
    """0.1: from 0.9 to 1.1 times as large."""
    shear: Annotated[float, Field(strict=True, ge=0.0, le=80.0)] = 0.0
    """In degrees, along the rows."""


class ColourSpec(Spec):
    """Lighter or darker, with more or less contrast; pixels stay between black and white."""

    brightness: Share = 0.2
    """At most so much of the way from black to white is added to all pixels, or taken away."""
    contrast: Annotated[float, Field(strict=True, ge=0.0, lt=1.0)] = 0.2
    """0.2: the distance from the image's mean becomes 0.8 to 1.2 times what it was."""


class AugmentationSpec(Spec):
    """Changes of the images of each training batch, in this order, drawn for each image from the seed and the step.

    Evaluation and population statistics see images as they are. What comes in from outside of an image is black.
    """

    crop: PositiveInt | None = None
    """Pad by so many pixels, and cut out the size of the image anywhere."""
    flip: Share = 0.0
    """Probability of left and right changing places."""
    affine: AffineSpec | None = None
    colour: ColourSpec | None = None
    cutout: PositiveInt | None = None
    """Blacken a square of so many pixels a side, its middle anywhere in the image."""

    @model_validator(mode="after")
    def _changes_something(self) -> "AugmentationSpec":
        if self.flip == 0.0 and not (self.crop or self.affine or self.colour or self.cutout):
            raise ValueError("changes nothing: set crop, flip, affine, colour or cutout, or leave augmentation out")
        return self
