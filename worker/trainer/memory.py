"""How the C library hands out memory: what a step frees, the next step gets back."""

import ctypes
import sys

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_NEVER = 2**31 - 1
_TOP_PAD_BYTES = 64 * 1024**2


def keep_freed_memory() -> None:
    """Keeps freed memory in the process instead of giving it back to the system.

    Maps of a convolution are megabytes. By default glibc fetches each from the system and gives it back, and
    every page of it is zeroed and mapped anew: 45 steps a second of the default convnet instead of 58, until
    its thresholds have adapted, and again whenever they are passed. A trainer ends with its job, so nothing is
    kept for long. Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in ((_MMAP_THRESHOLD, _NEVER), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _TOP_PAD_BYTES)):
        mallopt(parameter, value)
