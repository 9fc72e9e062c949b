"""Imported once by the forkserver of a node, so that a trainer starts in milliseconds.

Nothing here may run a parallel region or touch CUDA: both break in the children of a fork.
"""

import gc
import os

os.putenv("OPENBLAS_NUM_THREADS", "1")  # else numpy and scipy start threads, which no child of a fork has

import setproctitle
import torch
import torch._dynamo
import torch.optim
import torch.utils.data

import worker.trainer.main  # noqa: F401  with all that a trainer imports

setproctitle.setproctitle("evenkeel: forkserver")
torch.set_num_threads(1)
gc.collect()
gc.freeze()  # what is loaded now stays out of the children's collections, and on pages that they share
