"""Running averages that can not be poisoned: kept before a step, put back when the step is skipped or not finite.

A batch that overflows leaves NaN in every running average that sees it, and no later batch takes it
out again. The guard copies all of them by one operation, and on an accelerator puts them back by a
flag that lives there, so that nobody waits for the device.
"""

import torch
from torch import Tensor, nn

from bn_models.normalization import normalizations


class RunningGuard:
    """Of all statistical layers of a network:

        guard.snapshot()                 # before the forward pass
        guard.restore()                  # the step was skipped, or its loss is not finite
        guard.restore_where(spoiled)     # the same where the 0-d boolean `spoiled` on the device is true
        guard.settle()                   # before `updates` are read, after any `restore_where`

    The layers keep their own buffers: `state_dict`, `load_state_dict` and `.to()` work as without.
    Between a snapshot and its restore no state may be loaded and no layer frozen.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = list(normalizations(network).values())
        self._first: Tensor | None = None
        self._buffers: list[Tensor] = []
        self._sizes: list[int] = []
        self._saved = torch.empty(0)
        self._updates: list[int] = []
        # How many steps the device put back of which `updates` do not know yet, by the updates that they made.
        self._spoiled: dict[tuple[int, ...], Tensor] = {}
        self._cumulative = any(layer.momentum is None for layer in self._layers)

    def snapshot(self) -> None:
        """Keeps running averages and `updates` as they are now. Nothing moves, and nothing waits."""
        if not self._layers:
            return
        if self._layers[0]._buffers["running_mean"] is not self._first:
            self._find_buffers()  # `.to()` has put others in their place
        torch.cat(self._buffers, out=self._saved)
        self._updates = [layer.updates for layer in self._layers]

    def restore(self) -> None:
        """Puts back what the last snapshot kept, to the bit."""
        if self._updates:
            torch._foreach_copy_(self._buffers, torch.split(self._saved, self._sizes))
            for layer, updates in zip(self._layers, self._updates, strict=True):
                layer.updates = updates

    def restore_where(self, spoiled: Tensor) -> None:
        """Puts it back where `spoiled`, a 0-d boolean on the device of the network, is true; nobody waits for it.

        `updates` are the host's, and follow at `settle`. A cumulative average divides by them in the
        next step already: a network that has one (`momentum` null) does wait here.
        """
        if not self._updates:
            return
        if self._cumulative:
            if bool(spoiled):
                self.restore()
            return
        kept = torch.where(spoiled, self._saved, torch.cat(self._buffers))
        torch._foreach_copy_(self._buffers, torch.split(kept, self._sizes))
        made = tuple(layer.updates - before for layer, before in zip(self._layers, self._updates, strict=True))
        count = spoiled.to(torch.int64)
        self._spoiled[made] = self._spoiled[made] + count if made in self._spoiled else count

    def settle(self) -> None:
        """Takes what `restore_where` put back out of `updates`; waits for the device if there is something to ask."""
        for made, count in self._spoiled.items():
            steps = int(count)
            for layer, updates in zip(self._layers, made, strict=True):
                layer.updates -= steps * updates
        self._spoiled = {}

    def _find_buffers(self) -> None:
        """One-dimensional views of all running buffers, and room to keep them."""
        pairs = [(layer.running_mean, layer.running_spread) for layer in self._layers]
        self._first = pairs[0][0]
        self._buffers = [buffer.view(-1) for pair in pairs for buffer in pair]
        self._sizes = [len(buffer) for buffer in self._buffers]
        self._saved = torch.cat(self._buffers)
