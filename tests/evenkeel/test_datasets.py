"""Data sets from Python: arrays become an .npz file without numpy's help, files are sent as they are."""

import io
from typing import Any

import numpy as np
import pytest

from api.main import create_app
from core.db import Database
from core.settings import Settings
from evenkeel import Client, Conflict, Invalid, NotFound
from evenkeel.datasets import _packed
from tests.api.bench import Tenant
from tests.api.live import live_server


@pytest.fixture
def client(tmp_path: Any, sqlite_url: str, database: Database) -> Any:
    settings = Settings(home=tmp_path, database_url=sqlite_url, port=0)
    assert create_app(settings)
    with live_server(settings) as running, Client(running.url, Tenant(database, "first").key) as client:
        yield client


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.arange(24, dtype=np.uint8)[::2],
        np.array(["ä", "bcd"]),
        np.array([True, False]),
        np.array(3.0),
        np.zeros((2, 0, 3), ">f4"),
    ],
)
def test_numpy_reads_what_the_client_packed(array: Any) -> None:
    with np.load(io.BytesIO(_packed({"x": array})), allow_pickle=False) as file:
        assert np.array_equal(file["x"], array)
        assert file["x"].dtype == array.dtype


def test_arrays_are_uploaded_listed_and_deleted(client: Client) -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 5, 2)), np.arange(20) % 2

    first = client.datasets.upload("waves", {"x": x, "y": y})
    again = client.datasets.upload("waves", {"x": x, "y": y})
    second = client.datasets.upload("waves", {"x": x, "y": y, "x_test": x[:4], "y_test": y[:4]})

    assert (first.newest.kind, first.newest.input_shape, first.newest.labels) == ("sequence", (5, 2), ("0", "1"))
    assert again == first
    assert (second.versions, second.newest.test_rows) == ((2, 1), 4)
    assert second.spec(split_seed=3) == {"source": "uploaded", "name": "waves", "version": 2, "split_seed": 3}
    assert [dataset.name for dataset in client.datasets.list()] == ["waves"]
    assert [version.version for version in client.datasets.versions("waves")] == [2, 1]
    assert client.datasets.get("waves") == second
    client.datasets.delete("waves")
    with pytest.raises(NotFound):
        client.datasets.get("waves")


def test_files_are_uploaded_by_their_ending(client: Client, tmp_path: Any) -> None:
    (tmp_path / "prices.csv").write_text("zip,size,price\n1,2,3.5\n2,3,4.5\n")
    np.savez_compressed(tmp_path / "arrays.npz", x=np.ones((4, 2)), y=np.array(list("abab")))

    table = client.datasets.upload("prices", tmp_path / "prices.csv", target="size", categories=["zip"])
    arrays = client.datasets.upload("arrays", str(tmp_path / "arrays.npz"))

    assert table.newest.columns == ("zip=1", "zip=2", "price")
    assert arrays.newest.labels == ("a", "b")


def test_a_data_set_that_a_job_needs_is_not_deleted(client: Client) -> None:
    dataset = client.datasets.upload("waves", {"x": np.ones((20, 5, 2)), "y": np.arange(20) % 2})
    training = {"steps": 10, "batch_size": 4}
    client.submit({"dataset": dataset.spec(), "network": {"family": "recurrent"}, "training": training})

    with pytest.raises(Conflict, match="needed by job_"):
        client.datasets.delete("waves")


def test_what_can_not_be_used_is_told_before_or_behind_the_wire(client: Client, tmp_path: Any) -> None:
    (tmp_path / "table.csv").write_text("a,y\n1,\n")

    with pytest.raises(Invalid, match=r"row 1 \(line 2\), column 'y'"):
        client.datasets.upload("table", tmp_path / "table.csv")
    with pytest.raises(Invalid, match=r"neither \.npz nor \.csv"):
        client.datasets.upload("table", tmp_path / "table.xlsx")
    with pytest.raises(Invalid, match="x is list"):
        client.datasets.upload("table", {"x": [[1]], "y": np.ones(1)})
    with pytest.raises(Invalid, match="y holds Python objects"):
        client.datasets.upload("table", {"x": np.ones((1, 1)), "y": np.array([None])})
