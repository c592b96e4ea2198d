"""Examples to try the page with: puppets, drawn when it is started."""

from pathlib import Path
from typing import NamedTuple

from configs.schema import PuppetsConfig
from datasets.puppets.clips import Puppets
from media.images import write_image
from media.video_writer import VideoWriter

NUM_SOURCES, NUM_CLIPS, NUM_BACKGROUNDS = 3, 3, 3
NUM_FRAMES = 48  # of a clip
MIN_SIDE = 256  # pixels; smaller ones look blurred on the page


class Examples(NamedTuple):
    """Paths of sources, driving clips and backgrounds."""

    sources: tuple[Path, ...]
    clips: tuple[Path, ...]
    backgrounds: tuple[Path, ...]


def draw_examples(folder: Path, size: tuple[int, int], settings: PuppetsConfig) -> Examples:
    """Draw unseen puppets, each in one of the files alone.

    Args:
        folder: where to write them.
        size: (height, width) of the model's pictures; examples have this shape.
        settings: their seed and motion; a model that learned from puppets learned from these.
    """
    height, width = (round(side * max(1.0, MIN_SIDE / min(size))) for side in size)
    num_puppets = NUM_SOURCES + NUM_CLIPS + NUM_BACKGROUNDS
    puppets = Puppets(
        "test", num_puppets, NUM_FRAMES, (height, width), settings.seed, settings.motion_scale
    )
    clips = tuple(folder / f"clip-{number}.mp4" for number in range(1, NUM_CLIPS + 1))
    sources = tuple(folder / f"puppet-{number}.png" for number in range(1, NUM_SOURCES + 1))
    backgrounds = tuple(
        folder / f"background-{number}.png" for number in range(1, NUM_BACKGROUNDS + 1)
    )
    for index, clip in enumerate(clips):
        with VideoWriter(clip, puppets.frame_rate(index)) as video:
            for frame in puppets.stream(index):
                video.write(frame)
    for index, picture in enumerate((*sources, *backgrounds), len(clips)):
        write_image(picture, puppets.read(index, [0])[0])
    return Examples(sources, clips, backgrounds)
