"""Videos by their names, as lists of clips state them."""

from collections import defaultdict
from fractions import Fraction
from pathlib import Path

from common.errors import UserError
from common.safe_paths import is_folder
from datasets.prepare.footage import BoxedClip, Footage, Region, Unreadable
from media.video import CONTAINER_SUFFIXES


class NamedVideos:
    """The videos of a folder and of its subfolders, by their names without suffix.

    Raises:
        UserError: from the constructor, there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not is_folder(folder):
            raise UserError(f"{folder}: no such folder; it should hold the videos of the list")
        self._files: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in CONTAINER_SUFFIXES and not path.name.startswith("."):
                self._files[path.stem].append(path)

    def part(
        self, video: str, span: tuple[int, int], rate: Fraction | None, region: Region
    ) -> Footage:
        """The frames of `video` from span[0] up to span[1], which is left out, within `region`.

        Where there is no such video it is `Unreadable`. `rate`: see `BoxedClip.frame_rate`.

        Raises:
            UserError: two videos have this name.
        """
        if video not in self._files:
            return Unreadable(f"{video}.mp4", f"{video}.mp4: no video of this name")
        if len(self._files[video]) > 1:
            first, second = self._files[video][:2]
            raise UserError(f"{first} and {second}: two videos of one name; keep one of them")
        return BoxedClip(self._files[video][0], *span, rate, region)
