"""Augmentation of single images against pixels that are moved by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bn_models.export.scaling import InputScaling
from core.spec import TrainingSpec
from worker.trainer.augmentation import Augmentation

BLACK, WHITE = -0.5, 1.5


def augmented(images: Tensor, step: int = 1, seed: int = 0, black: float = BLACK, **spec: Any) -> Tensor:
    training = TrainingSpec(augmentation=spec, seed=seed)
    assert training.augmentation is not None
    return Augmentation(training.augmentation, seed, black, WHITE)(images, step)


def images(count: int = 40, channels: int = 2, side: int = 6) -> Tensor:
    return torch.rand(count, channels, side, side + 1, generator=torch.Generator().manual_seed(1)) * 2.0 - 0.5


@pytest.mark.parametrize(
    "spec",
    [{"crop": 2}, {"flip": 0.5}, {"affine": {}}, {"colour": {}}, {"cutout": 3}],
    ids=lambda spec: next(iter(spec)),
)
def test_draws_come_from_the_seed_and_the_step_alone_and_differ_by_image(spec: dict[str, Any]):
    given = images()
    before = given.clone()

    found = augmented(given, step=7, **spec)

    assert torch.equal(given, before)
    assert found.shape == given.shape
    assert torch.equal(found, augmented(given, step=7, **spec))
    assert not torch.equal(found, augmented(given, step=8, **spec))
    assert not torch.equal(found, augmented(given, step=7, seed=1, **spec))
    alike = augmented(given[:1].repeat(40, 1, 1, 1), step=7, **spec)
    assert len({tuple(one.flatten().tolist()) for one in alike}) > 1


def test_a_crop_moves_the_image_by_whole_pixels_and_fills_with_black():
    given = images()
    padded = np.pad(given.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=BLACK)

    found = augmented(given, crop=2).numpy()

    for index, image in enumerate(found):
        windows = [padded[index, :, row : row + 6, column : column + 7] for row in range(5) for column in range(5)]
        assert sum(np.array_equal(image, window) for window in windows) == 1


def test_a_flip_changes_left_and_right_of_about_as_many_images_as_asked():
    given = images(400)
    found = augmented(given, flip=0.25)

    turned = [torch.equal(one, image.flip(-1)) for one, image in zip(found, given, strict=True)]
    kept = [torch.equal(one, image) for one, image in zip(found, given, strict=True)]

    assert all(a != b for a, b in zip(turned, kept, strict=True))
    assert 70 <= sum(turned) <= 130


def test_an_affine_map_of_nothing_is_the_image_and_one_of_a_shift_moves_its_middle():
    given = images()
    still = augmented(given, affine={"degrees": 0.0, "translate": 0.0, "scale": 0.0})
    torch.testing.assert_close(still, given, atol=1e-5, rtol=0.0)

    dot = torch.zeros(60, 1, 21, 21)
    dot[:, 0, 10, 10] = 1.0
    moved = augmented(dot, black=0.0, affine={"degrees": 0.0, "translate": 0.2, "scale": 0.0})
    places = torch.stack(torch.meshgrid(torch.arange(21.0), torch.arange(21.0), indexing="ij"))
    centres = (moved * places[None]).sum((2, 3)) - 10.0

    assert float(moved.sum((1, 2, 3)).min()) > 0.99
    assert float(centres.abs().max()) <= 0.2 * 21 + 1e-3
    assert float(centres.abs().max()) > 0.15 * 21


def test_a_turn_keeps_the_distance_from_the_middle_of_an_image_that_is_no_square():
    dot = torch.zeros(60, 1, 21, 41)
    dot[:, 0, 10, 26] = 1.0  # six columns right of the middle

    turned = augmented(dot, black=0.0, affine={"degrees": 180.0, "translate": 0.0, "scale": 0.0})
    rows, columns = torch.meshgrid(torch.arange(21.0) - 10.0, torch.arange(41.0) - 20.0, indexing="ij")
    mass = turned.sum((1, 2, 3))
    down, right = ((turned[:, 0] * axis).sum((1, 2)) / mass for axis in (rows, columns))

    torch.testing.assert_close(torch.hypot(down, right), torch.full((60,), 6.0), atol=0.2, rtol=0.0)
    assert float(down.max()) > 4.0
    assert float(down.min()) < -4.0


def test_colour_moves_mean_and_contrast_within_their_bounds_and_stays_between_black_and_white():
    given = images() * 0.2 + 0.4  # far from black and white
    found = augmented(given, colour={"brightness": 0.1, "contrast": 0.3})

    moved = found.mean((1, 2, 3)) - given.mean((1, 2, 3))
    wider = found.std((1, 2, 3)) / given.std((1, 2, 3))
    assert float(moved.abs().max()) <= 0.1 * (WHITE - BLACK) + 1e-5
    assert 0.7 - 1e-4 <= float(wider.min()) < 0.8
    assert 1.2 < float(wider.max()) <= 1.3 + 1e-4
    extreme = augmented(images(), colour={"brightness": 1.0})
    assert float(extreme.min()) >= BLACK
    assert float(extreme.max()) <= WHITE


def test_a_cutout_blackens_one_square_which_may_stand_over_the_edge():
    given = torch.full((200, 2, 8, 8), 1.0)
    cut = augmented(given, cutout=3) == BLACK

    assert torch.equal(cut[:, 0], cut[:, 1])
    rows, columns = cut[:, 0].any(2).sum(1), cut[:, 0].any(1).sum(1)
    assert torch.equal(cut[:, 0].sum((1, 2)), rows * columns)
    assert set(rows.tolist()) == set(columns.tolist()) == {2, 3}


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0 / 16), (4.8, 1.0 / 6.0)])
def test_black_and_white_are_pixels_0_and_the_largest_as_they_are_scaled(offset: float, scale: float):
    training = TrainingSpec(augmentation={"cutout": 1, "colour": {"brightness": 1.0}})
    augmentation = Augmentation.of(training, InputScaling(np.array([offset]), np.array([scale])), 16)
    assert augmentation is not None

    found = augmentation(torch.full((500, 1, 4, 4), (8.0 - offset) * scale), 1)

    assert float(found.min()) == pytest.approx(-offset * scale)
    assert float(found.max()) == pytest.approx((16.0 - offset) * scale)
