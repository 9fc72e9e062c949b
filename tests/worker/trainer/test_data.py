import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits

from core.errors import JobFailed
from core.spec import SOURCES, DatasetSpec
from worker.trainer import sources
from worker.trainer.data import Data, prepare, standardizing
from worker.trainer.files import DataFolder, RemoteFile
from worker.trainer.sources import load, remote_files

ROOT = Path(__file__).parents[3]
MNIST = Path(os.environ.get("EVENKEEL_TEST_MNIST_DIR", ROOT.parent / "shared" / "data" / "mnist"))
BUNDLED = ["digits", "iris", "wine", "breast_cancer", "diabetes"]
CPU = torch.device("cpu")


def prepared(folder: Path, **fields: object) -> Data:
    return prepare(DatasetSpec.model_validate(fields), DataFolder(folder, "http://127.0.0.1:9"), CPU)


@pytest.mark.parametrize("source", BUNDLED)
def test_a_bundled_source_is_what_its_facts_say(tmp_path: Path, source: str):
    raw, facts = load(source, DataFolder(tmp_path, "")), SOURCES[source]

    assert raw.rows.inputs.shape == (facts.rows, *facts.input_shape)
    assert len(raw.rows.targets) == facts.rows
    assert len(raw.columns) == (facts.input_shape[0] if facts.kind == "table" else 0)
    if facts.task == "classification":
        assert len(raw.labels) == facts.outputs
        assert sorted(set(raw.rows.targets.tolist())) == list(range(facts.outputs))
    if facts.pixel_maximum is not None:
        assert raw.rows.inputs.max() == facts.pixel_maximum


def test_a_label_beyond_the_classes_fails_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def array(_: DataFolder, __: str, file: RemoteFile) -> np.ndarray:
        return np.full(file.shape, 10, np.uint8)

    monkeypatch.setattr(sources.DataFolder, "array", array)

    with pytest.raises(JobFailed, match=r"mnist/train-labels-idx1-ubyte.gz: holds the class 10") as caught:
        load("mnist", DataFolder(tmp_path, ""))

    assert caught.value.code == "invalid_data"


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist"])
def test_every_remote_file_has_a_sha256_and_the_shape_of_its_split(source: str):
    files = remote_files(source)

    assert [file.shape for file in files] == [(60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,)]
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in files)


def test_splits_have_the_sizes_of_the_spec_and_share_no_row(tmp_path: Path):
    data = prepared(tmp_path, source="digits", test_fraction=0.25, validation_fraction=0.1)

    splits = [data.training, data.validation, data.test]
    assert [len(split) for split in splits] == [1214, 134, 449]
    assert sorted(torch.cat([split.rows for split in splits]).tolist()) == list(range(1797))


def test_the_split_depends_on_its_seed_alone(tmp_path: Path):
    first = prepared(tmp_path, source="iris", split_seed=1)
    same = prepared(tmp_path, source="iris", split_seed=1, scaling="none")
    other = prepared(tmp_path, source="iris", split_seed=2)

    assert torch.equal(first.test.rows, same.test.rows)
    assert not torch.equal(first.test.rows, other.test.rows)


def test_a_source_without_validation_rows_has_no_validation_split(tmp_path: Path):
    assert prepared(tmp_path, source="iris", validation_fraction=0.0).validation is None


def test_unit_scaling_divides_by_the_largest_pixel_value(tmp_path: Path):
    data = prepared(tmp_path, source="digits")

    inputs, targets = data.training.between(0, 5)

    digits, rows = load_digits(), data.training.rows[:5].numpy()
    assert inputs.dtype == torch.float32
    assert np.allclose(inputs.numpy()[:, 0], digits.images[rows] / 16, atol=1e-7)
    assert targets.tolist() == digits.target[rows].tolist()


def test_standardized_columns_have_mean_0_and_deviation_1_over_the_training_rows_only(tmp_path: Path):
    data = prepared(tmp_path, source="wine")

    training = data.training.between(0, len(data.training))[0].double()
    assert torch.allclose(training.mean(0), torch.zeros(13, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(training.std(0, correction=0), torch.ones(13, dtype=torch.float64), atol=1e-5)
    assert not torch.allclose(data.test.between(0, 35)[0].mean(0), torch.zeros(13), atol=1e-3)


@pytest.mark.parametrize(("value", "rows"), [(0.2, 3), (0.7, 11), (1000.1, 7)])
def test_a_column_whose_deviation_is_only_rounding_is_centred_and_not_blown_up(value: float, rows: int):
    column = np.full((rows, 1), value)
    assert 0.0 < column.std() < 1e-12

    scaling = standardizing(column.mean(axis=0), column.std(axis=0))

    assert scaling.scale.tolist() == [1.0]


def test_the_recorded_offset_is_the_float32_number_that_training_and_the_graph_subtract():
    scaling = standardizing(np.array([1000.0123]), np.array([0.1]))

    assert scaling.offset.tolist() == [float(np.float32(1000.0123))]


def test_standardized_images_have_one_mean_and_deviation_over_all_pixels(tmp_path: Path):
    data = prepared(tmp_path, source="digits", scaling="standardize")

    training = data.training.between(0, len(data.training))[0].double()
    assert data.input_scaling.offset.shape == (1,)
    assert abs(float(training.mean())) < 1e-5
    assert abs(float(training.std(correction=0)) - 1.0) < 1e-5


def test_regression_targets_are_standardized_and_the_way_back_is_recorded(tmp_path: Path):
    data = prepared(tmp_path, source="diabetes")

    targets = data.training.between(0, 10)[1].double().numpy()
    original = load_diabetes(scaled=False).target[data.training.rows[:10].numpy()]
    assert np.allclose(data.output_scaling.apply(targets), original, rtol=1e-6)


def test_gathering_rows_equals_scaling_them_in_float64(tmp_path: Path):
    data = prepared(tmp_path, source="breast_cancer")
    order = data.training.shuffled(7)

    inputs, _ = data.training.gather(order[:20])

    raw = load("breast_cancer", DataFolder(tmp_path, "")).rows.inputs[order[:20].numpy()]
    assert np.allclose(inputs.numpy(), data.input_scaling.apply(raw), atol=1e-5)


def test_an_epoch_is_a_permutation_of_the_training_rows(tmp_path: Path):
    data = prepared(tmp_path, source="iris")

    order, again, other = (data.training.shuffled(seed) for seed in (1, 1, 2))

    assert torch.equal(order, again) and not torch.equal(order, other)
    assert sorted(order.tolist()) == sorted(data.training.rows.tolist())


def test_probe_rows_are_test_rows_in_the_data_s_own_units(tmp_path: Path):
    data = prepared(tmp_path, source="diabetes")

    raw = load("diabetes", DataFolder(tmp_path, "")).rows.inputs
    assert np.array_equal(data.probe, raw[data.test.rows.numpy()].astype(np.float32)[:128])


@pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST files: set EVENKEEL_TEST_MNIST_DIR to their folder")
def test_mnist_is_used_whole_and_stays_in_bytes(tmp_path: Path):
    (tmp_path / "mnist").symlink_to(MNIST)

    data = prepared(tmp_path, source="mnist")

    assert (len(data.training), data.validation, len(data.test)) == (60_000, None, 10_000)
    assert data.training.inputs.dtype == torch.uint8
    inputs, targets = data.training.gather(torch.tensor([0, 59_999]))
    assert inputs.shape == (2, 1, 28, 28)
    assert float(inputs.min()) >= 0.0 and float(inputs.max()) == 1.0
    assert targets.tolist() == [5, 8]
