"""`training.compile`: the network's forward and backward pass through torch.compile.

Batch sizes are compiled one by one, never as symbols: else the code, and with it the bits, would depend on
which size came first, and a resumed run may meet them in another order.
"""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import torch._dynamo.config
import torch._inductor.config
from torch import Tensor
from torch.utils._triton import has_triton

from bn_models.networks import Network
from bn_models.normalization import normalizations

Forward = Callable[[Tensor], Tensor]
_COMPILERS = ("g++", "clang++", "c++")


@cache
def compiler() -> str | None:
    """The C++ compiler that inductor would call, with its version; None where there is none."""
    found = next((name for name in _COMPILERS if shutil.which(name)), None)
    if found is None:
        return None
    answer = subprocess.run([found, "-dumpversion"], capture_output=True, text=True, check=False)
    return f"{found} {answer.stdout.strip()}"


def why_not(network: Network, device: torch.device) -> str | None:
    """What keeps this network from being compiled here; None: nothing."""
    if compiler() is None:
        return f"this worker has no C++ compiler ({', '.join(_COMPILERS)})"
    if device.type != "cpu" and not has_triton():
        return "this worker's torch has no Triton"
    if any(layer.momentum is None for layer in normalizations(network).values()):
        return "batch_norm.momentum is null, and the weight of a cumulative average changes at every step"
    return None


class Compiled:
    """A network in training as a callable, compiled at the first call with each batch size.

    The count of updates of the running averages is kept here: an int that changes at every step
    would have torch compile at every step.
    """

    def __init__(self, network: Network) -> None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder(Path(tempfile.gettempdir())))
        torch._inductor.config.cpp.cxx = (None, (compiler() or "").partition(" ")[0])
        torch._inductor.config.compile_threads = 1  # no pool of processes that would outlive the trainer
        torch._dynamo.config.automatic_dynamic_shapes = False
        self._network = network
        self._layers = list(normalizations(network).values())
        for layer in self._layers:
            layer.__dict__.pop("_factor", None)  # of a compilation before a layer was frozen
        self._counts: dict[int, list[int]] = {}
        self._call: Forward = torch.compile(network, dynamic=False)

    def __call__(self, x: Tensor) -> Tensor:
        outputs = self._call(x)
        for layer, count in zip(self._layers, self._counts[len(x)], strict=True):
            layer.updates += count
        return outputs

    @torch.no_grad()
    def count(self, x: Tensor) -> None:
        """How many updates a batch like `x` makes, layer by layer: from one uncompiled pass, which leaves traces."""
        before = [layer.updates for layer in self._layers]
        self._network(x)
        self._counts[len(x)] = [layer.updates - was for layer, was in zip(self._layers, before, strict=True)]

    def stop_counting(self) -> None:
        for layer in self._layers:
            layer._factor = _constant(layer.momentum)  # type: ignore[method-assign]


def _constant(momentum: float | None) -> Callable[[], float]:
    value = 0.0 if momentum is None else momentum
    return lambda: value


def cache_folder(parent: Path) -> Path:
    """Where inductor keeps what it compiled: nobody else may write there, for it is loaded as code.

    It is kept from job to job, which halves the time of a second compilation; a folder of that name
    which others own or can enter is left alone, and a fresh one is taken.
    """
    folder = parent / f"evenkeel-compiled-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    ours = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o077
    return folder if ours else Path(tempfile.mkdtemp(prefix="evenkeel-compiled-", dir=parent))
