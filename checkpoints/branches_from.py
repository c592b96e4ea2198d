"""Joins branches that were trained apart, in several checkpoints, to one model."""

from typing import Any

import torch

from branches.model import Model
from checkpoints.checkpoint import Checkpoint
from common.errors import UserError
from configs.loading import parse_config
from configs.schema import Config


def with_branches_from(small: Checkpoint, other: Checkpoint) -> Checkpoint:
    """Return `small` with all branches that `other` has, in place of its own; both are slim.

    Step, provenance and all of the config but the sections of these branches stay those of `small`,
    and its provenance names `other`. It has no metrics: they were measured with other branches.

    Raises:
        UserError: the two are for pictures of different sizes, have other kinds of weights or
            another licence, or a part of `other` was never trained.
    """
    height, width = small.config.data.size
    if other.config.data.size != (height, width):
        found = "{1} x {0}".format(*other.config.data.size)
        raise UserError(
            f"--branches-from {other.path}: for pictures of {found} pixels, and {small.path} for "
            f"{width} x {height}; both must be for the same size"
        )
    if other.untrained:
        (start, *_) = other.untrained.values()
        raise UserError(
            f"--branches-from {other.path}: a part of it has not been trained yet ({start}); train "
            "it for longer"
        )
    for fact in ("weights", "licence"):
        own, others = small.provenance.get(fact), other.provenance.get(fact)
        if own != others:
            raise UserError(
                f"--branches-from {other.path}: its {fact}: {others or 'none stated'}; that of "
                f"{small.path}: {own or 'none stated'}; give --{fact} for all of them"
            )
    config = _joined(small.config, other.config, origin=str(other.path))
    replaced = {
        name
        for branch, names in _networks(small.config).items()
        if branch in other.config.branches
        for name in names
    }
    kept = {name: state for name, state in small.networks.items() if name not in replaced}
    provenance = _joined_provenance(small.provenance, other.provenance)
    return small._replace(
        config=config, networks=kept | other.networks, metrics={}, provenance=provenance
    )


def _joined_provenance(own: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    names = (own.get("branches_from"), other["exported_from"], other.get("branches_from"))
    found = own | {"branches_from": ", ".join(name for name in names if name)}
    if "dtype" not in other:  # its numbers have not been rounded
        found.pop("dtype", None)
    return found


def _joined(config: Config, other: Config, origin: str) -> Config:
    """`config` with the branches of `other`, which count as trained from the first step on."""
    tree = config.model_dump()
    tree["discriminator"] = None  # it is not in the file, and may not fit the other branches
    dumped = other.model_dump()
    for branch in other.branches:
        tree[branch] = dumped[branch]
    for start in other.starts:
        section = tree
        for key in start.split("."):
            section = section[key]
        section.update(start_epoch=0, start_share=None)
    return parse_config(tree, origin)


def _networks(config: Config) -> dict[str, list[str]]:
    """The names of the networks of each branch."""
    with torch.device("meta"):
        branches = Model(config).branches
    return {
        name: [part for part, _ in branch.named_children()] for name, branch in branches.items()
    }
