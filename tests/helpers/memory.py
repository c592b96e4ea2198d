"""A network that runs out of memory."""

from contextlib import contextmanager

import torch


@contextmanager
def memory_for(num_frames, network):
    """Make `network` run out of memory for more than `num_frames` frames."""

    def allocate(_, arguments):
        if len(arguments[0]) > num_frames:
            raise torch.OutOfMemoryError("out of memory")

    hook = network.register_forward_pre_hook(allocate)
    try:
        yield
    finally:
        hook.remove()
