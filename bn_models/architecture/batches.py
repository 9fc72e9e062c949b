"""Where the batches of an epoch begin and end; admission and the trainer ask the same function."""

from typing import Literal


def batch_bounds(rows: int, batch_size: int, tail: Literal["drop", "merge"]) -> tuple[tuple[int, int], ...]:
    """(start, end) of each batch of an epoch of `rows` samples, in order.

    An incomplete last batch is left out (`drop`); or it is a batch of its own, unless it is a single
    sample, which has no variance and joins the batch before it (`merge`).
    """
    full = rows // batch_size
    bounds = [(index * batch_size, (index + 1) * batch_size) for index in range(full)]
    left = rows - full * batch_size
    if left == 0 or tail == "drop":
        return tuple(bounds)
    if left == 1 and bounds:
        bounds[-1] = (bounds[-1][0], rows)
    else:
        bounds.append((rows - left, rows))
    return tuple(bounds)


def ghost_sizes(samples: int, virtual_batch_size: int) -> tuple[int, ...]:
    """Samples of each group of a batch that is normalized in virtual batches; a remainder joins the last group."""
    groups = max(1, samples // virtual_batch_size)
    return (*(virtual_batch_size,) * (groups - 1), samples - (groups - 1) * virtual_batch_size)
