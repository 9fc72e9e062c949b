"""The data sources of `core.spec.data`: rows in the data's own units, targets, and the names of both."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

from core.errors import JobFailed
from core.spec.data import SOURCES, SourceFacts
from worker.trainer.files import DataFolder, RemoteFile

Array = NDArray[np.uint8] | NDArray[np.int64] | NDArray[np.float32] | NDArray[np.float64]

_DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_TABLES = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "diabetes": lambda: load_diabetes(scaled=False),  # ages in years and so on, not already standardized
}
_IMAGES, _LABELS = (28, 28), ()
_FILES = {
    "mnist": (
        ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    "fashion_mnist": (
        ("train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        ("train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ("t10k-images-idx3-ubyte.gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        ("t10k-labels-idx1-ubyte.gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
}


@dataclass(frozen=True)
class Rows:
    """inputs (N, *input_shape) in the data's own units; targets (N,): class numbers or regression values."""

    inputs: Array
    targets: Array


@dataclass(frozen=True)
class RawData:
    """A source before it is split; `test` is the official test set, where there is one."""

    facts: SourceFacts
    rows: Rows
    test: Rows | None
    labels: tuple[str, ...]  # by class number; empty for regression
    columns: tuple[str, ...]  # of a table; empty for images and where there are no names
    fields: tuple[dict[str, Any], ...] = ()
    """Of a table with columns of text, as the card has them: each column's name and categories, before these became
    columns of their own."""


def load(source: str, folder: DataFolder) -> RawData:
    """Reads `source`, a key of SOURCES.

    Raises JobFailed("invalid_data") or StorageFailed, as `DataFolder.array` does.
    """
    facts = SOURCES[source]
    if source in _FILES:
        labels = _CLOTHES if source == "fashion_mnist" else _DIGITS
        training, test = _read_images(source, facts, folder)
        return RawData(facts, training, test, labels, ())
    if source == "digits":
        digits = load_digits()
        images = digits.images.astype(np.uint8).reshape(-1, *facts.input_shape)
        return RawData(facts, Rows(images, digits.target.astype(np.int64)), None, _DIGITS, ())
    return _read_table(facts, source)


def _read_table(facts: SourceFacts, source: str) -> RawData:
    table = _TABLES[source]()
    if facts.task == "regression":
        targets, labels = table.target.astype(np.float64), []
    else:
        targets, labels = table.target.astype(np.int64), [str(name) for name in table.target_names]
    columns = tuple(str(name) for name in table.feature_names)
    return RawData(facts, Rows(table.data.astype(np.float64), targets), None, tuple(labels), columns)


def remote_files(source: str) -> tuple[RemoteFile, ...]:
    """The four IDX files of an image source: training images and labels, then those of the test set."""
    facts = SOURCES[source]
    test = facts.test_rows or 0
    sizes = (facts.rows - test, facts.rows - test, test, test)
    shapes = (_IMAGES, _LABELS, _IMAGES, _LABELS)
    return tuple(
        RemoteFile(name, sha256, (rows, *shape))
        for (name, sha256), rows, shape in zip(_FILES[source], sizes, shapes, strict=True)
    )


def _read_images(source: str, facts: SourceFacts, folder: DataFolder) -> tuple[Rows, Rows]:
    files = remote_files(source)
    images, labels, test_images, test_labels = (folder.array(source, file) for file in files)
    for file, classes in ((files[1], labels), (files[3], test_labels)):
        if int(classes.max()) >= facts.outputs:
            message = f"{source}/{file.name}: holds the class {int(classes.max())}, and there are only {facts.outputs}"
            raise JobFailed("invalid_data", f"{message}; replace the file")
    return _rows(images, labels, facts), _rows(test_images, test_labels, facts)


def _rows(images: NDArray[np.uint8], labels: NDArray[np.uint8], facts: SourceFacts) -> Rows:
    return Rows(images.reshape(-1, *facts.input_shape), labels.astype(np.int64))
