"""Published checkpoints of TPSMM, by the names of our networks.

    kp_detector, dense_motion_network, inpainting_network
    bg_predictor: from the epoch in which it starts, and only where the background moves
    avd_network: after the second stage of training

Our networks name their tensors as the published ones do.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

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
    scales,
)

PROJECT: Final = "TPSMM"
PLACES: Final = (
    Place("kp_detector", "", "keypoint_detector", ""),
    Place("dense_motion_network", "", "dense_motion", ""),
    Place("inpainting_network", "", "inpainting", ""),
    Place("bg_predictor", "", "background_motion", ""),
    Place("avd_network", "", "avd", ""),
)


def read(content: Mapping[str, Any]) -> Published | None:
    """The TPSMM that was read as `content`; None if it is of another layout."""
    parts = read_parts(content)
    if not parts.keys() >= {"kp_detector", "dense_motion_network", "inpainting_network"}:
        return None
    tensors = sort_tensors(parts, partial(own_name, PLACES))
    has_avd = "avd" in tensors.networks
    return Published(
        project=PROJECT,
        section="motion",
        kind="tpsmm",
        config="vox-tpsmm-avd.yaml" if has_avd else "vox-tpsmm.yaml",
        epoch=read_epoch(content),
        tensors=tensors,
        settings=_settings(tensors),
        subsections={
            "motion.background_motion": "background_motion" in tensors.networks,
            "motion.avd": has_avd,
        },
    )


def _settings(tensors: Sorted) -> dict[str, Any]:
    dense_motion = tensors.networks.get("dense_motion", {})
    inpainting = tensors.networks.get("inpainting", {})
    candidates = num_channels(dense_motion, "maps.weight")  # the background is the first
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
