"""Sizes that make each kind of motion model tiny: for 32 x 32 pixels and a step of milliseconds.

Those of kind fomm are in `factories.tiny_overrides`.
"""

_HOURGLASS = ("scale=0.5", "width=4", "max_width=16", "num_blocks=2")
_UNET = ("width=4", "max_width=16", "code=8", "num_levels=4")
_SIZES: dict[str, dict[str, tuple[str, ...]]] = {
    "monkey_net": {
        "keypoint_detector": (*_HOURGLASS, "num_keypoints=4"),
        "dense_motion": _HOURGLASS,
        "generator": ("width=4", "max_width=16", "num_blocks=3", "num_res_blocks=1"),
    },
    "x2face": {"embedding": _UNET, "driving": _UNET},
    "tpsmm": {
        "keypoint_detector": ("num_plates=2",),  # a ResNet-18, which has no size to choose
        "dense_motion": _HOURGLASS,
        "inpainting": ("width=4", "max_width=8", "num_down_blocks=2"),
    },
}
KINDS = tuple(_SIZES)


def tiny_motion(kind: str) -> list[str]:
    """Overrides of the section `motion` that make its networks tiny; none for kind fomm."""
    return [
        f"motion.{network}.{size}"
        for network, sizes in _SIZES.get(kind, {}).items()
        for size in sizes
    ]


def tiny_kind(kind: str) -> list[str]:
    """Overrides that give the tiny config a motion model of this kind, as tiny."""
    if kind == "fomm":
        return []
    # A run of two epochs is over before the background of TPSMM would start.
    start = ["motion.background_motion.start_epoch=0"] if kind == "tpsmm" else []
    return [f"motion.kind={kind}", *tiny_motion(kind), *start]
