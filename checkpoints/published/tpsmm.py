"""Converts the published checkpoints of TPSMM to the names of our networks.

A file has these parts:

    kp_detector, dense_motion_network, inpainting_network
    bg_predictor: missing before the epoch in which it starts to learn, and for MGif
    avd_network: only after the second stage of training

Our networks name their tensors as the published ones do.
"""

from collections.abc import Mapping
from typing import Any, Final

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
    scales,
)

PROJECT: Final = "TPSMM"
CONFIGS: Final = (
    "vox-tpsmm.yaml",
    "vox-tpsmm-avd.yaml",
    "mgif-tpsmm.yaml",
    "mgif-tpsmm-avd.yaml",
)
PLACES: Final = (
    Place("kp_detector", "", "keypoint_detector", ""),
    Place("dense_motion_network", "", "dense_motion", ""),
    Place("inpainting_network", "", "inpainting", ""),
    Place("bg_predictor", "", "background_motion", ""),
    Place("avd_network", "", "avd", ""),
)


def read(content: Mapping[str, Any]) -> Published | None:
    """Convert the content of a file of TPSMM; None if its parts are not those of TPSMM."""
    parts = read_parts(content)
    if not parts.keys() >= {"kp_detector", "dense_motion_network", "inpainting_network"}:
        return None
    tensors = sort_by_places(parts, PLACES)
    return Published(
        project=PROJECT,
        section="motion",
        kind="tpsmm",
        configs=CONFIGS,
        epoch=read_epoch(content),
        tensors=tensors,
        settings=_settings(tensors),
        subsections={
            "motion.background_motion": "background_motion" in tensors.networks,
            "motion.avd": "avd" in tensors.networks,
        },
    )


def _settings(tensors: Sorted) -> dict[str, Any]:
    """Derive values of config keys, by dotted key, from the shapes of the tensors."""
    dense_motion = tensors.networks.get("dense_motion", {})
    inpainting = tensors.networks.get("inpainting", {})
    candidates = num_channels(dense_motion, "maps.weight")  # the first is the background
    width = num_channels(inpainting, "first.conv.weight")
    avd = tensors.networks.get("avd", {})
    return known(
        {
            "motion.keypoint_detector.num_plates": None if candidates is None else candidates - 1,
            **hourglass("motion.dense_motion", dense_motion, "hourglass"),
            "motion.inpainting.width": width,
            **encoder_limit("motion.inpainting", inpainting, "down_blocks.", width),
            "motion.inpainting.num_down_blocks": num_blocks(inpainting, "down_blocks."),
            "motion.avd.code": num_channels(avd, "pose_encoder.9.weight"),
            **scales("motion", tensors.kernels),
        }
    )
