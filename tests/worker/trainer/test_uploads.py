"""Data sets that were uploaded, as a trainer reads, splits and scales them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from api.uploads.contents import Contents
from api.uploads.writing import write_contents
from core.errors import JobFailed
from core.spec import DatasetSpec
from worker.trainer import features
from worker.trainer.data import Data, prepare
from worker.trainer.files import DataFolder

CPU = torch.device("cpu")
DRAW = np.random.default_rng(0)
SEQUENCES = (DRAW.normal(size=(50, 7, 3)) * [1.0, 100.0, 0.01] + [0.0, 5000.0, 3.0]).astype(np.float32)
CLASSES = DRAW.integers(0, 2, 50)


def stored(contents: Contents, folder: Path, **changes: Any) -> tuple[dict[str, Any], DataFolder]:
    """(`dataset` of a job as the service writes it, the folder of a node that has the file)."""
    write_contents(contents, folder / "file")
    content = (folder / "file").read_bytes()
    facts = contents.facts
    block = {
        "sha256": "a" * 64,
        "file": {"name": "datasets/file", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)},
        "task": facts.task,
        "kind": facts.kind,
        "input_shape": list(facts.input_shape),
        "outputs": facts.outputs,
        "rows": facts.rows,
        "test_rows": facts.test_rows,
        "pixel_maximum": facts.pixel_maximum,
    }
    spec = {"source": "uploaded", "name": "mine", "version": 1, "stored": block | changes}
    return spec, DataFolder(folder, None, lambda _: (folder / "file").open("rb"))


def prepared(contents: Contents, folder: Path, **options: Any) -> Data:
    spec, node = stored(contents, folder)
    return prepare(DatasetSpec.model_validate(spec | options), node, CPU)


def sequences(**changes: Any) -> Contents:
    given = {"inputs": SEQUENCES, "targets": CLASSES, "labels": ("a", "b")} | changes
    return Contents("classification", "sequence", **given)


def test_sequences_are_standardized_by_feature_over_rows_and_time(tmp_path: Path) -> None:
    data = prepared(sequences(), tmp_path)

    training = data.training.between(0, len(data.training))[0].double()
    assert data.input_scaling.offset.shape == (3,)
    assert torch.allclose(training.mean((0, 1)), torch.zeros(3, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(training.std((0, 1), correction=0), torch.ones(3, dtype=torch.float64), atol=1e-4)


def test_unit_divides_each_feature_by_its_largest_value_in_the_training_rows(tmp_path: Path) -> None:
    data = prepared(sequences(), tmp_path, scaling="unit")

    training = data.training.between(0, len(data.training))[0]
    assert torch.allclose(training.abs().amax((0, 1)), torch.ones(3), atol=1e-6)


def test_a_table_of_small_floats_is_standardized_as_one_of_large_ones(tmp_path: Path) -> None:
    table = SEQUENCES[:, 0]
    small, large = (
        prepared(Contents("regression", "table", rows, CLASSES * 1.5), tmp_path).input_scaling
        for rows in (table, table.astype(np.float64))
    )

    assert np.allclose(small.offset, large.offset, rtol=1e-6)
    assert np.allclose(small.scale, large.scale, rtol=1e-6)


def test_images_of_floats_are_divided_by_their_largest_pixel(tmp_path: Path) -> None:
    images = DRAW.uniform(0, 0.5, (50, 1, 4, 4)).astype(np.float32)
    contents = Contents(
        "classification", "image", images, CLASSES, labels=("a", "b"), pixel_maximum=float(images.max())
    )

    data = prepared(contents, tmp_path)

    assert data.input_scaling.scale[0] == pytest.approx(1 / images.max())


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_standardized_over_all_pixels(tmp_path: Path, dtype: Any) -> None:
    images = DRAW.integers(0, 200, (50, 2, 4, 4)).astype(dtype)
    contents = Contents("classification", "image", images, CLASSES, labels=("a", "b"), pixel_maximum=199)

    data = prepared(contents, tmp_path, scaling="standardize")

    training = data.training.between(0, len(data.training))[0].double()
    assert abs(float(training.mean())) < 1e-5
    assert abs(float(training.std(correction=0)) - 1.0) < 1e-5


def test_an_official_test_set_is_used_whole_and_never_trained_on(tmp_path: Path) -> None:
    contents = sequences(test_inputs=SEQUENCES[:5], test_targets=CLASSES[:5])

    data = prepared(contents, tmp_path, validation_fraction=0.2)

    assert (len(data.training), len(data.validation), len(data.test)) == (40, 10, 5)
    assert data.test.between(0, 5)[1].tolist() == CLASSES[:5].tolist()
    assert np.array_equal(data.probe, SEQUENCES[:5])


def test_labels_columns_and_fields_come_with_the_rows(tmp_path: Path) -> None:
    fields = [{"name": "colour", "categories": ["red", "blue"]}]
    contents = Contents(
        "classification",
        "table",
        np.eye(2)[CLASSES],
        CLASSES,
        labels=("a", "b"),
        columns=("c=red", "c=blue"),
        fields=fields,
    )

    data = prepared(contents, tmp_path)

    assert (data.labels, data.columns, list(data.fields)) == (("a", "b"), ("c=red", "c=blue"), fields)


@pytest.mark.parametrize("changes", [{"rows": 51}, {"input_shape": [7, 4]}, {"test_rows": 5}])
def test_a_file_that_holds_something_else_fails_the_job(tmp_path: Path, changes: Any) -> None:
    spec, node = stored(sequences(), tmp_path, **changes)

    with pytest.raises(JobFailed, match=r"datasets/file does not hold the data set that it must") as caught:
        prepare(DatasetSpec.model_validate(spec), node, CPU)

    assert caught.value.code == "storage_error"


@pytest.mark.parametrize("length", [0, 5, 100, 300])
def test_a_file_that_ends_too_early_fails_the_job(tmp_path: Path, length: int) -> None:
    spec, node = stored(sequences(), tmp_path)
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:length])

    with pytest.raises(JobFailed, match="upload it again"):
        prepare(DatasetSpec.model_validate(spec), node, CPU)


def test_moments_by_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "PART_VALUES", 50)
    exact = SEQUENCES.astype(np.float64)

    mean, deviation = features.moments(SEQUENCES, by_feature=True)
    (one,), (spread,) = features.moments(SEQUENCES, by_feature=False)

    assert np.allclose(mean, exact.mean((0, 1)), rtol=1e-13)
    assert np.allclose(deviation, exact.std((0, 1)), rtol=1e-12)
    assert (one, spread) == (pytest.approx(exact.mean()), pytest.approx(exact.std()))
    assert np.array_equal(features.largest(SEQUENCES), np.abs(exact).max((0, 1)))
    rows = np.array([3, 1, 4, 15])
    assert np.allclose(features.moments(SEQUENCES, rows, by_feature=True)[0], exact[rows].mean((0, 1)), rtol=1e-13)
    assert np.array_equal(features.largest(SEQUENCES, rows), np.abs(exact[rows]).max((0, 1)))


def test_a_table_of_bytes_stays_bytes_and_is_scaled_by_column(tmp_path: Path) -> None:
    table = DRAW.integers(0, [2, 200], (50, 2), dtype=np.uint8)

    data = prepared(Contents("classification", "table", table, CLASSES, labels=("a", "b")), tmp_path)

    training = data.training.between(0, len(data.training))[0].double()
    assert data.training.inputs.dtype == torch.uint8
    assert torch.allclose(training.std(0, correction=0), torch.ones(2, dtype=torch.float64), atol=1e-5)
