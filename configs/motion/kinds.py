"""The section `motion`: one class for each kind of motion model. Without `kind` it is fomm."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from configs.motion.fomm import FommConfig
from configs.motion.monkey_net import MonkeyNetConfig
from configs.motion.tpsmm import TpsmmConfig
from configs.motion.x2face import X2FaceConfig


def motion_kind(section: Any) -> str:
    """The kind of a section, as a mapping or as an object; fomm where it says none."""
    if isinstance(section, dict):
        return str(section.get("kind", "fomm"))
    return str(getattr(section, "kind", "fomm"))


MotionConfig = Annotated[
    Annotated[FommConfig, Tag("fomm")]
    | Annotated[MonkeyNetConfig, Tag("monkey_net")]
    | Annotated[X2FaceConfig, Tag("x2face")]
    | Annotated[TpsmmConfig, Tag("tpsmm")],
    Discriminator(motion_kind),
]
