"""Converts the published checkpoints of Perturbed Masks to the names of our networks.

A file has these parts:

    mask_generator; generator, which contains the networks L, H and R

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
from checkpoints.published.shapes import hourglass, known, num_blocks, scales

PROJECT: Final = "Perturbed Masks"
PLACES: Final = (
    Place("mask_generator", "", "mask_generator", ""),
    *(
        Place("generator", head, "low_resolution", head)
        for head in ("first.", "bottleneck.", "up_blocks.", "final.")
    ),
    *(
        Place("generator", head, "high_resolution", head)
        for head in ("hourglass.", "final_hourglass.")
    ),
    *(Place("generator", head, "refinement", head) for head in ("mask_fix_net.", "ref.")),
)


def read(content: Mapping[str, Any]) -> Published | None:
    """Convert the content of a file of Perturbed Masks; None if its parts are others."""
    parts = read_parts(content)
    if not parts.keys() >= {"mask_generator", "generator"}:
        return None
    tensors = sort_by_places(parts, PLACES)
    return Published(
        project=PROJECT,
        section="masks",
        kind=None,
        configs=("vox-masks.yaml",),
        epoch=read_epoch(content),
        tensors=tensors,
        settings=_settings(tensors),
        subsections={},
    )


def _settings(tensors: Sorted) -> dict[str, Any]:
    """Derive values of config keys, by dotted key, from the shapes of the tensors."""
    networks = tensors.networks
    low = networks.get("low_resolution", {})
    return known(
        {
            **hourglass("masks.mask_generator", networks.get("mask_generator", {}), "predictor"),
            **hourglass("masks.refinement", networks.get("refinement", {}), "mask_fix_net"),
            **hourglass("masks.high_resolution", networks.get("high_resolution", {}), "hourglass"),
            "masks.low_resolution.num_res_blocks": num_blocks(low, "bottleneck."),
            **scales("masks", tensors.kernels),
        }
    )
