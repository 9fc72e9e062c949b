"""Augmentation of a batch of images on their device: `core.spec.augmentation`, drawn from the seed and the step.

Draws are made on the CPU, so that a run has the same ones on every device, and whichever step it began at.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from bn_models.export.scaling import InputScaling
from bn_models.randomness import derive_seed, mix
from core.spec import TrainingSpec
from core.spec.augmentation import AffineSpec, AugmentationSpec, ColourSpec


class Augmentation:
    """`black` and `white`: the smallest and the largest pixel, scaled."""

    def __init__(self, spec: AugmentationSpec, seed: int, black: float, white: float) -> None:
        self._spec = spec
        self._seed = derive_seed(seed, "augmentation")
        self._black, self._white = black, white

    @classmethod
    def of(cls, training: TrainingSpec, scaling: InputScaling, pixel_maximum: float | None) -> "Augmentation | None":
        """None where the spec asks for none."""
        if training.augmentation is None:
            return None
        offset, scale = float(scaling.offset[0]), float(scaling.scale[0])
        black, white = (0.0 - offset) * scale, ((pixel_maximum or 1) - offset) * scale
        return cls(training.augmentation, training.seed, black, white)

    def __call__(self, images: Tensor, step: int) -> Tensor:
        """Changed images, (N, C, H, W) like those given, which stay as they are."""
        spec = self._spec
        generator = torch.Generator().manual_seed(mix(self._seed, step))
        if spec.crop is not None:
            images = _cropped(images, spec.crop, self._black, generator)
        if spec.flip > 0.0:
            turned = _uniform(images, generator) < spec.flip
            images = torch.where(turned, images.flip(-1), images)
        if spec.affine is not None:
            images = _moved(images, spec.affine, self._black, generator)
        if spec.colour is not None:
            images = _coloured(images, spec.colour, self._black, self._white, generator)
        if spec.cutout is not None:
            images = _cut_out(images, spec.cutout, self._black, generator)
        return images


def _uniform(images: Tensor, generator: Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """One number for each image, (N, 1, 1, 1)."""
    drawn = torch.rand(len(images), generator=generator) * (high - low) + low
    return drawn.to(images.device).view(-1, 1, 1, 1)


def _places(images: Tensor, generator: Generator, size: int) -> Tensor:
    """A whole number below `size` for each image, (N, 1)."""
    return torch.randint(size, (len(images), 1), generator=generator).to(images.device)


def _cropped(images: Tensor, padding: int, black: float, generator: Generator) -> Tensor:
    count, _, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4, value=black)
    rows = _places(images, generator, 2 * padding + 1) + torch.arange(height, device=images.device)
    columns = _places(images, generator, 2 * padding + 1) + torch.arange(width, device=images.device)
    which = torch.arange(count, device=images.device).view(-1, 1, 1)
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _moved(images: Tensor, spec: AffineSpec, black: float, generator: Generator) -> Tensor:
    """Where each pixel comes from is an affine map of where it is, in pixels about the middle."""
    height, width = images.shape[2:]
    ranges = (math.radians(spec.degrees), math.radians(spec.shear), spec.translate, spec.translate)
    angle, shear, right, down = (_uniform(images, generator, -most, most).flatten() for most in ranges)
    size = _uniform(images, generator, 1.0 - spec.scale, 1.0 + spec.scale).flatten()
    cosine, sine, slant = angle.cos() / size, angle.sin() / size, torch.tan(shear)
    first = torch.stack((cosine, (cosine * slant - sine) * (height / width), 2.0 * right), 1)
    second = torch.stack((sine * (width / height), sine * slant + cosine, 2.0 * down), 1)
    grid = functional.affine_grid(torch.stack((first, second), 1), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images - black, grid, padding_mode="zeros", align_corners=False)
    return moved + black


def _coloured(images: Tensor, spec: ColourSpec, black: float, white: float, generator: Generator) -> Tensor:
    light = _uniform(images, generator, -spec.brightness, spec.brightness) * (white - black)
    contrast = _uniform(images, generator, 1.0 - spec.contrast, 1.0 + spec.contrast)
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + light).clamp(black, white)


def _cut_out(images: Tensor, side: int, black: float, generator: Generator) -> Tensor:
    height, width = images.shape[2:]
    top = _places(images, generator, height) - side // 2
    left = _places(images, generator, width) - side // 2
    rows = torch.arange(height, device=images.device) - top
    columns = torch.arange(width, device=images.device) - left
    inside = ((rows >= 0) & (rows < side))[:, None, :, None] & ((columns >= 0) & (columns < side))[:, None, None, :]
    return images.masked_fill(inside, black)
