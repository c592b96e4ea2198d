"""Converts the published checkpoints of FOMM to the names of our networks.

A file has these parts:

    kp_detector; generator, which contains dense_motion_network; discriminator

Our networks name their tensors as the published ones do, so only the beginning of a name changes.
"""

from collections.abc import Mapping
from typing import Any, Final

from checkpoints.published.layout import (
    Place,
    Published,
    Sorted,
    State,
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
    scales,
)

PROJECT: Final = "FOMM"
PLACES: Final = (
    Place("kp_detector", "", "keypoint_detector", ""),
    Place("generator", "dense_motion_network.", "dense_motion", ""),
    Place("generator", "", "generator", ""),
    Place("discriminator", "discs.1.", "discriminator", ""),
)


def read(content: Mapping[str, Any]) -> Published | None:
    """Convert the content of a file of FOMM; None if its parts are not those of FOMM."""
    parts = read_parts(content)
    if not parts.keys() >= {"kp_detector", "generator"}:
        return None
    tensors = sort_by_places(parts, PLACES)
    return Published(
        project=PROJECT,
        section="motion",
        kind="fomm",
        configs=("vox-fomm.yaml", "mgif-fomm.yaml"),
        epoch=read_epoch(content),
        tensors=tensors,
        settings=_settings(tensors),
        subsections={},
    )


def _settings(tensors: Sorted) -> dict[str, Any]:
    """Derive values of config keys, by dotted key, from the shapes of the tensors."""
    detector = tensors.networks.get("keypoint_detector", {})
    dense_motion = tensors.networks.get("dense_motion", {})
    generator = tensors.networks.get("generator", {})
    num_keypoints = num_channels(detector, "kp.weight")
    width = num_channels(generator, "first.conv.weight")
    return known(
        {
            "motion.keypoint_detector.num_keypoints": num_keypoints,
            "motion.keypoint_detector.jacobian": _jacobian(detector, num_keypoints),
            **hourglass("motion.keypoint_detector", detector, "predictor"),
            **hourglass("motion.dense_motion", dense_motion, "hourglass"),
            "motion.dense_motion.occlusion": "occlusion.weight" in dense_motion,
            "motion.generator.width": width,
            **encoder_limit("motion.generator", generator, "down_blocks.", width),
            "motion.generator.num_down_blocks": num_blocks(generator, "down_blocks."),
            "motion.generator.num_res_blocks": num_blocks(generator, "bottleneck."),
            **scales("motion", tensors.kernels),
        }
    )


def _jacobian(detector: State, num_keypoints: int | None) -> str | None:
    """Derive `motion.keypoint_detector.jacobian`: 4 maps for each keypoint, or 4 for all."""
    maps = num_channels(detector, "jacobian.weight")
    if maps is None:
        return "none"
    if num_keypoints == 1:  # then `shared` and `per_keypoint` are the same
        return None
    return "shared" if maps == 4 else "per_keypoint"
