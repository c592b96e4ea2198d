"""Published checkpoints of Monkey-Net, by the names of our networks.

    kp_detector; generator, with dense_motion_module in it; discriminator

Unlike those of FOMM, the heads of several names differ, since our networks have the same attributes
whatever the system. Networks were published for clips, so every kernel has a third axis of size 1.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from torch import Tensor

from checkpoints.published.layout import (
    Place,
    Published,
    Sorted,
    own_name,
    read_epoch,
    read_parts,
    sort_tensors,
)
from checkpoints.published.shapes import (
    encoder_limit,
    hourglass,
    known,
    num_blocks,
    num_channels,
)

PROJECT: Final = "Monkey-Net"
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
    """The Monkey-Net that was read as `content`; None if it is of another layout.

    A file of FOMM has the same parts, but no kernel with five axes.
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
    tensors = sort_tensors(flat, partial(own_name, PLACES))
    return Published(
        project=PROJECT,
        section="motion",
        kind="monkey_net",
        config="vox-monkey-net.yaml",
        epoch=read_epoch(content),
        tensors=tensors,
        settings=_settings(tensors),
        subsections={},
    )


def _without_time(tensor: Tensor) -> Tensor:
    """A kernel C' x C x 1 x h x w as C' x C x h x w; every other tensor as it is."""
    return tensor.squeeze(2) if tensor.ndim == 5 else tensor


def _settings(tensors: Sorted) -> dict[str, Any]:
    """No file tells the scales, since nothing is blurred before it is made smaller."""
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
    """The group blocks see a heatmap and three colours for each keypoint and the background, and
    with differences two coordinates more.
    """
    if num_keypoints is None or channels is None:
        return None
    return channels == 6 * (num_keypoints + 1)
