"""Files as X2Face was published, from networks of ours: PyTorch 0.2 wrote them."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from checkpoints.published_x2face import published_name
from modules.x2face import X2Face
from tests.helpers.old_torch_files import write_old_file


def tiny_x2face(num_levels: int = 3) -> X2Face:
    """Random weights, and statistics of BatchNorm as after some steps; sides are 2^num_levels."""
    network = X2Face(4, 8, num_levels, embedding_code_size=6, driving_code_size=5)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return network


def x2face_content(network: X2Face) -> dict[str, Any]:
    """Everything that a published file has in it, with the weights of `network`."""
    state = OrderedDict()
    for part, own in (("embedding", network.embedding), ("driving", network.driving)):
        for name, tensor in own.state_dict().items():
            if not name.endswith("num_batches_tracked"):  # PyTorch counts them since 0.4.1
                state[published_name(part, name, len(own.unet.down_blocks))] = tensor
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=1e-3, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    group = {"lr": 1e-3, "momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": False}
    # At that time a parameter was named by its place in memory.
    buffers = {
        140_000_000_000_000: {"momentum_buffer": optimizer.state[parameter]["momentum_buffer"]}
    }
    groups = [group | {"params": [*buffers]}]
    return {"state_dict": state, "optimizer": {"state": buffers, "param_groups": groups}}


def write_x2face(path: Path, network: X2Face) -> Path:
    """Write a published file with the weights of `network`; returns `path`."""
    return write_old_file(path, x2face_content(network))
