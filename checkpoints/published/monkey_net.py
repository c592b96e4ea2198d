"""Converts the published checkpoints of Monkey-Net to the names of our networks.

A file has these parts:

    kp_detector; generator, which contains dense_motion_module; discriminator

The beginning of most names changes, since our networks use the same attribute names for every
motion model. The published networks take clips, so their convolution kernels have five axes; the
third axis, time, has size 1 and is removed.
"""

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from checkpoints.published.layout import (
    Place,
    Published,
    Sorted,
    read_epoch,
    read_parts,
    sort_by_places,
)
from checkpoints.published.shapes import (
    encoder_limit,
    hourglass,
    known,
    num_blocks,
    num_channels,
)

PROJECT: Final = "Monkey-Net"
CONFIGS: Final = (
    "vox-monkey-net.yaml",
    "taichi-monkey-net-64.yaml",
    "bair-monkey-net-64.yaml",
    "mgif-monkey-net.yaml",
)
PLACES: Final = (
    Place("kp_detector", "predictor.decoder.conv.", "keypoint_detector", "kp."),
    Place("kp_detector", "predictor.", "keypoint_detector", "predictor."),
    Place(
        "generator",
        "dense_motion_module.hourglass.decoder.conv.",
        "dense_motion",
        "weights_and_correction.",
    ),
    Place("generator", "dense_motion_module.hourglass.", "dense_motion", "hourglass."),
    Place("generator", "dense_motion_module.group_blocks.", "dense_motion", "group_blocks."),
    Place("generator", "appearance_encoder.", "generator", "encoder."),
    Place("generator", "video_decoder.up_blocks.", "generator", "up_blocks."),
    Place("generator", "refinement_module.conv-last.", "generator", "final."),
    Place("generator", "refinement_module.", "generator", "refinement."),
    Place("discriminator", "", "discriminator", ""),
)


def read(content: Mapping[str, Any]) -> Published | None:
    """Convert the content of a file of Monkey-Net; None if it is not one.

    A file of FOMM has the same parts, but its kernels have four axes.
    """
    parts = read_parts(content)
    if not parts.keys() >= {"kp_detector", "generator"}:
        return None
    if not any(tensor.ndim == 5 for tensor in parts["generator"].values()):
        return None
    flat = {
        part: {name: _without_time(tensor) for name, tensor in state.items()}
        for part, state in parts.items()
    }
    tensors = sort_by_places(flat, PLACES)
    return Published(
        project=PROJECT,
        section="motion",
        kind="monkey_net",
        configs=CONFIGS,
        epoch=read_epoch(content),
        tensors=tensors,
        settings=_settings(tensors),
        subsections={},
    )


def _without_time(tensor: Tensor) -> Tensor:
    """Remove the time axis of a kernel, C' x C x 1 x h x w; return other tensors unchanged."""
    return tensor.squeeze(2) if tensor.ndim == 5 else tensor


def _settings(tensors: Sorted) -> dict[str, Any]:
    """Derive values of config keys, by dotted key, from the shapes of the tensors.

    The scales are not among them: Monkey-Net shrinks images without a blur, so no tensor depends on
    the scale.
    """
    detector = tensors.networks.get("keypoint_detector", {})
    dense_motion = tensors.networks.get("dense_motion", {})
    generator = tensors.networks.get("generator", {})
    num_keypoints = num_channels(detector, "kp.weight")
    blocks = num_blocks(generator, "encoder.down_blocks.")
    width = num_channels(generator, f"up_blocks.{blocks - 1}.conv.weight")
    return known(
        {
            "motion.keypoint_detector.num_keypoints": num_keypoints,
            **hourglass("motion.keypoint_detector", detector, "predictor"),
            **hourglass("motion.dense_motion", dense_motion, "hourglass"),
            "motion.dense_motion.use_difference": _use_difference(
                num_keypoints, num_channels(dense_motion, "group_blocks.0.conv.weight")
            ),
            "motion.dense_motion.occlusion": False,
            "motion.generator.width": width,
            **encoder_limit("motion.generator", generator, "encoder.down_blocks.", width),
            "motion.generator.num_blocks": blocks,
            "motion.generator.num_res_blocks": num_blocks(generator, "refinement."),
        }
    )


def _use_difference(num_keypoints: int | None, channels: int | None) -> bool | None:
    """Derive `motion.dense_motion.use_difference` from the channels of the first group block.

    The block sees a heatmap and three colours for the background and for each keypoint, K + 1
    candidates. With `use_difference` it also sees the two coordinates of each shift.
    """
    if num_keypoints is None or channels is None:
        return None
    return channels == 6 * (num_keypoints + 1)
