"""Published checkpoints: the files of FOMM and of Perturbed Masks, by the names of our networks.

    FOMM               kp_detector; generator, with dense_motion_network in it; discriminator
    Perturbed Masks    mask_generator; generator, with L, H and R side by side in it

Our networks name their tensors as the published ones do, so only the head of a name changes. Blur
kernels (`down.weight`) are left out, since ours follow from the scale; so are the optimizers.
"""

from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any, NamedTuple

from torch import Tensor

from configs.schema import Config
from modules.blocks import AntiAliasDownsample

State = dict[str, Tensor]

_KERNEL = "down.weight"
_SCALES = {AntiAliasDownsample(scale).kernel.numel(): scale for scale in (0.5, 0.25, 0.125, 0.0625)}


class _TensorGroup(NamedTuple):
    """Where tensors of the published `part` whose names start with `head` belong.

    cut: the head is not part of the name in our network.
    """

    part: str
    head: str
    network: str
    cut: bool


class _Layout(NamedTuple):
    """parts: those that make a file one of `project`. section: of the config, for its branch.

    config: the name of one that fits. places: the first that fits a name counts.
    """

    project: str
    parts: tuple[str, ...]
    section: str
    config: str
    places: tuple[_TensorGroup, ...]


_LAYOUTS = (
    _Layout(
        "FOMM",
        ("kp_detector", "generator"),
        "motion",
        "vox-fomm.yaml",
        (
            _TensorGroup("kp_detector", "", "keypoint_detector", cut=False),
            _TensorGroup("generator", "dense_motion_network.", "dense_motion", cut=True),
            _TensorGroup("generator", "", "generator", cut=False),
            _TensorGroup("discriminator", "discs.1.", "discriminator", cut=True),
        ),
    ),
    _Layout(
        "Perturbed Masks",
        ("mask_generator", "generator"),
        "masks",
        "vox-masks.yaml",
        (
            _TensorGroup("mask_generator", "", "mask_generator", cut=False),
            *(
                _TensorGroup("generator", head, "low_resolution", cut=False)
                for head in ("first.", "bottleneck.", "up_blocks.", "final.")
            ),
            *(
                _TensorGroup("generator", head, "high_resolution", cut=False)
                for head in ("hourglass.", "final_hourglass.")
            ),
            *(
                _TensorGroup("generator", head, "refinement", cut=False)
                for head in ("mask_fix_net.", "ref.")
            ),
        ),
    ),
)


class Published(NamedTuple):
    """A published checkpoint, by our names.

    project: whose file it is. section: of the config, for the one branch that it holds.
    config: the name of one that fits, if not to the data set.
    epoch: the last one trained; None where the file does not say.
    networks: the state dict of each network.
    settings: what the tensors tell of the config, by dotted key.
    unused: tensors without a place here, by their name in the file.
    """

    project: str
    section: str
    config: str
    epoch: int | None
    networks: dict[str, State]
    settings: dict[str, Any]
    unused: list[str]


def convert(content: Any) -> Published | None:
    """The published checkpoint that was read as `content`; None if it is of no such layout."""
    if not isinstance(content, dict):
        return None
    parts = {name: part for name, part in content.items() if _is_state(part)}
    for layout in _LAYOUTS:
        if parts.keys() >= {*layout.parts}:
            networks, kernels, unused = _sort(parts, layout)
            read = {"motion": _motion_settings, "masks": _mask_settings}[layout.section]
            settings = read(networks) | _scales(layout.section, kernels)
            epoch = content.get("epoch")
            return Published(
                layout.project,
                layout.section,
                layout.config,
                epoch if isinstance(epoch, int) else None,
                networks,
                {key: value for key, value in settings.items() if value is not None},
                unused,
            )
    return None


def problems(published: Published, config: Config) -> list[str]:
    """What must change in `config` to animate with `published`, by dotted key."""
    if published.section not in config.branches:
        return [f"{published.section} is null, and the file holds this branch"]
    others = [name for name in config.branches if name != published.section]
    if others:
        return [f"{name} must be null, since the file holds {published.section}" for name in others]
    found = {key: reduce(getattr, key.split("."), config) for key in published.settings}
    return [
        f"{key} must be {_show(value)}, found {_show(found[key])}"
        for key, value in published.settings.items()
        if found[key] != value
    ]


def _is_state(part: Any) -> bool:
    is_full = isinstance(part, Mapping) and len(part) > 0
    return is_full and all(isinstance(tensor, Tensor) for tensor in part.values())


def _sort(
    parts: Mapping[str, State], layout: _Layout
) -> tuple[dict[str, State], dict[str, Tensor], list[str]]:
    """The tensors by network, the blur kernel of each network, and the names of the rest."""
    networks: dict[str, State] = {}
    kernels: dict[str, Tensor] = {}
    unused = []
    for part, name, tensor in _tensors(parts):
        places = [p for p in layout.places if p.part == part and name.startswith(p.head)]
        if not places:
            unused.append(f"{part}.{name}")
            continue
        place = places[0]
        own_name = name.removeprefix(place.head) if place.cut else name
        if own_name == _KERNEL:
            kernels[place.network] = tensor
        else:
            # Once a lone number was a tensor of one element; torch itself still accepts those.
            own = tensor.squeeze() if own_name.endswith("num_batches_tracked") else tensor
            networks.setdefault(place.network, {})[own_name] = own
    return networks, kernels, unused


def _tensors(parts: Mapping[str, State]) -> Iterator[tuple[str, str, Tensor]]:
    for part, state in parts.items():
        for name, tensor in state.items():
            yield part, name, tensor


# What the shapes say; None where they say nothing


def _motion_settings(networks: Mapping[str, State]) -> dict[str, Any]:
    detector = networks.get("keypoint_detector", {})
    dense_motion = networks.get("dense_motion", {})
    generator = networks.get("generator", {})
    num_keypoints = _channels(detector, "kp.weight")
    return {
        "motion.keypoint_detector.num_keypoints": num_keypoints,
        "motion.keypoint_detector.jacobian": _jacobian(detector, num_keypoints),
        **_hourglass("motion.keypoint_detector", detector, "predictor"),
        **_hourglass("motion.dense_motion", dense_motion, "hourglass"),
        "motion.dense_motion.occlusion": "occlusion.weight" in dense_motion,
        "motion.generator.width": _channels(generator, "first.conv.weight"),
        "motion.generator.num_down_blocks": _blocks(generator, "down_blocks."),
        "motion.generator.num_res_blocks": _blocks(generator, "bottleneck."),
    }


def _mask_settings(networks: Mapping[str, State]) -> dict[str, Any]:
    low = networks.get("low_resolution", {})
    return {
        **_hourglass("masks.mask_generator", networks.get("mask_generator", {}), "predictor"),
        **_hourglass("masks.refinement", networks.get("refinement", {}), "mask_fix_net"),
        **_hourglass("masks.high_resolution", networks.get("high_resolution", {}), "hourglass"),
        "masks.low_resolution.num_res_blocks": _blocks(low, "bottleneck."),
    }


def _scales(section: str, kernels: Mapping[str, Tensor]) -> dict[str, Any]:
    """The blur is as wide as the scale is small."""
    return {
        f"{section}.{network}.scale": _SCALES.get(kernel.shape[-1])
        for network, kernel in kernels.items()
    }


def _hourglass(key: str, state: State, name: str) -> dict[str, Any]:
    num_blocks = _blocks(state, f"{name}.encoder.down_blocks.")
    last = f"{name}.decoder.up_blocks.{num_blocks - 1}.conv.weight"
    return {f"{key}.num_blocks": num_blocks, f"{key}.width": _channels(state, last)}


def _jacobian(detector: State, num_keypoints: int | None) -> str | None:
    maps = _channels(detector, "jacobian.weight")
    if maps is None:
        return "none"
    if num_keypoints == 1:  # shared or not is the same
        return None
    return "shared" if maps == 4 else "per_keypoint"


def _channels(state: State, name: str) -> int | None:
    """Of the output of a convolution."""
    return len(state[name]) if name in state else None


def _blocks(state: State, head: str) -> int:
    return len({name.removeprefix(head).split(".")[0] for name in state if name.startswith(head)})


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
