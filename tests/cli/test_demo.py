import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cli.demo import IDX_FILES, lend_mnist
from core.settings import Settings

DEMO = [sys.executable, "-P", "-c", "from cli.main import main; main()", "demo"]


def start(folder):
    """The demo with its temporary files in `folder`."""
    return subprocess.Popen(
        DEMO,
        env=os.environ | {"TMPDIR": str(folder), "EVENKEEL_HOME": str(folder / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_stops_all_that_it_started(tmp_path, until, living, number):
    demo = start(tmp_path)
    until(lambda: list(tmp_path.glob("evenkeel-demo-*/service.json")))
    family = psutil.Process(demo.pid).children(recursive=True)

    demo.send_signal(number)
    output, _ = demo.communicate(timeout=60)

    until(lambda: living(family) == [])
    assert len(family) >= 3
    assert demo.returncode != 0
    assert "Traceback" not in output
    if number != signal.SIGKILL:
        assert list(tmp_path.glob("evenkeel-demo-*")) == []


@pytest.mark.slow
def test_the_demo_trains_compares_asks_and_leaves_nothing_behind(tmp_path):
    demo = start(tmp_path)
    output, _ = demo.communicate(timeout=110)

    assert demo.returncode == 0, output
    assert "with batch norm" in output
    assert "train/eval gap" in output
    assert "POST /v1/models/digits-bn/predict" in output
    assert output.count("true ") == output.count("said ")
    assert list(tmp_path.glob("evenkeel-demo-*")) == []


def test_mnist_is_lent_from_the_data_folder_packed_or_not(tmp_path):
    source = tmp_path / "data" / "mnist"
    source.mkdir(parents=True)
    for index, name in enumerate(IDX_FILES):
        (source / (f"{name}.gz" if index % 2 else name)).write_bytes(b"rows")
    home = tmp_path / "home"

    assert lend_mnist(Settings(data_dir=tmp_path / "data"), home)
    assert sorted(file.read_bytes() for file in (home / "data" / "mnist").iterdir()) == [b"rows"] * 4


def test_mnist_is_left_out_where_a_file_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("cli.demo.CHECKOUT", tmp_path / "checkout" / "inner")
    source = tmp_path / "data" / "mnist"
    source.mkdir(parents=True)
    for name in IDX_FILES[:3]:
        (source / name).write_bytes(b"rows")

    assert not lend_mnist(Settings(data_dir=tmp_path / "data"), tmp_path / "home")
    assert not Path(tmp_path / "home" / "data").exists()
