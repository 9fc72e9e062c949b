import pytest
import torch

from core.errors import JobFailed
from core.spec import ResourcesSpec
from worker.trainer import device
from worker.trainer.device import choose, numerics


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("asked", "slot", "gpus", "expected"),
    [
        ("auto", None, 0, "cpu"),
        ("auto", None, 2, "cuda:0"),
        ("auto", 1, 2, "cuda:1"),
        ("cuda", 1, 2, "cuda:1"),
        ("cuda:0", 1, 2, "cuda:0"),
        ("cpu", 1, 2, "cpu"),
    ],
)
def test_auto_and_cuda_mean_the_gpu_of_the_slot_and_a_number_means_itself(
    monkeypatch: pytest.MonkeyPatch, asked: str, slot: int | None, gpus: int, expected: str
):
    pretend_gpus(monkeypatch, gpus)

    assert choose(ResourcesSpec(device=asked), slot) == torch.device(expected)


@pytest.mark.parametrize(("asked", "gpus"), [("cuda", 0), ("cuda:2", 2)])
def test_a_gpu_that_is_not_there_is_no_reason_to_take_another(monkeypatch: pytest.MonkeyPatch, asked: str, gpus: int):
    pretend_gpus(monkeypatch, gpus)

    with pytest.raises(JobFailed, match=f"sees {gpus} GPUs"):
        choose(ResourcesSpec(device=asked))


def test_on_a_gpu_convolutions_are_deterministic_and_float32_as_the_spec_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "choose", lambda *_: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    before = torch.backends.cudnn.conv.fp32_precision

    with numerics(ResourcesSpec()):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"

    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.conv.fp32_precision == before
