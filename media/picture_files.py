"""Decodes still image files with Pillow; only `watched_process.py` does so, within its limits."""

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from common.errors import UserError
from common.files import GIT_LFS_POINTER
from common.limits import Limits, check_bytes, check_pixels, too_many
from common.safe_paths import open_to_read
from media.frames import Frame
from media.images import BAND, over_white
from media.watched import PictureFacts

# Formats that are read, by Pillow's names. It knows 40 more; some start other programs (EPS).
FORMATS: Final = (
    *("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF"),
    *("AVIF", "HEIF", "JPEG2000", "TGA", "PPM", "QOI"),
)
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF
_HEAD: Final = 512  # bytes by which the kind of a file is told
_MAX_REASON: Final = 200  # characters of Pillow's words, which may repeat text of the file
# Pillow's warning of large pictures, which are read anyway. Filters hold for all threads: set once.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode(path: Path, limits: Limits, report: Callable[[int], None]) -> Frame:
    """Decode a picture; see `images.read_image`.

    Args:
        report: is called with the number of pixels before they are decoded.

    Raises:
        UserError: there is no such file, it is not an image, or it is larger than `limits` allow.
    """
    try:
        return _upright(*_picture_and_orientation(path, limits, report))
    except Exception as error:
        raise _image_error(path, error) from None


def _picture_and_orientation(
    path: Path, limits: Limits, report: Callable[[int], None]
) -> tuple[Frame, int]:
    with _open_checked(path, limits) as image:  # its memory is free once this function has returned
        report(image.width * image.height)
        image.load()  # some formats are turned by this already, and say so
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return _to_rgb(image), orientation


def facts(path: Path, limits: Limits) -> PictureFacts:
    """Read the header of a picture; raises as `decode`."""
    try:
        with _open_checked(path, limits) as image:
            is_animated = bool(getattr(image, "is_animated", False))
            return PictureFacts((image.height, image.width), image.format or "", is_animated)
    except Exception as error:
        raise _image_error(path, error) from None


@contextmanager
def _open_checked(path: Path, limits: Limits) -> Iterator[Image.Image]:
    """Open an image with Pillow if its format is in FORMATS; HEIC needs pillow-heif installed.

    The file is opened once, so that nothing can take its place after the checks.

    Raises:
        UserError: the picture is larger than `limits` allow.
        Exception: of any kind, for other reasons; see `_image_error`.
    """
    with open_to_read(path) as file:
        check_bytes(path, os.fstat(file.fileno()).st_size, limits.picture)
        with _identified(path, file, limits) as image:
            check_pixels(path, *image.size, limits.picture, "a picture")
            _check_tiles(path, image, limits)
            yield image


def _identified(path: Path, file: BinaryIO, limits: Limits) -> Image.Image:
    """Let Pillow read the header of the open file `path`; raises as `_open_checked`."""
    if Image.MAX_IMAGE_PIXELS is not None and limits.picture > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limits.picture  # Pillow's own, which would end it with an error
    try:
        return _open(file)
    except UnidentifiedImageError:
        file.seek(0)
        if not _is_heif(file.read(_HEAD)) or not _register_heif():
            raise
        file.seek(0)
        return _open(file)
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        if found is None:
            raise
        number = too_many(int(found[1]), limits.picture)
        raise UserError(f"{path}: a picture with too many pixels, {number}") from None


def _check_tiles(path: Path, image: Image.Image, limits: Limits) -> None:
    """Raise UserError if a tile of a TIFF, which may be larger than the picture, is too large."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        width, height = (int(image.tag_v2.get(tag, 0)) for tag in (_TILE_WIDTH, _TILE_LENGTH))
        check_pixels(path, width, height, limits.picture, "tiles")


def _image_error(path: Path, error: Exception) -> UserError:
    """Turn an error of Pillow into a message for the user."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: no such file")
    if isinstance(error, IsADirectoryError):
        return UserError(f"{path}: not an image: this is a folder")
    if isinstance(error, UnidentifiedImageError):
        return UserError(f"{path}: not an image: {describe_contents(path)}")
    if isinstance(error, MemoryError):  # of a small picture too, if it is damaged
        return UserError(f"{path}: not an image that can be read: it asks for too much memory")
    # Damage shows in any number of ways, depending on the format.
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path}: not an image that can be read: {reason:.{_MAX_REASON}}")


def _open(file: BinaryIO) -> Image.Image:
    # By Pillow itself: imageio would try every format that Pillow knows, whatever FORMATS says, and
    # hides the tiles of TIFF, which are checked before it is decoded.
    Image.init()
    return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])


def _register_heif() -> bool:
    """Let Pillow read HEIC; False if pillow-heif is not installed."""
    try:
        import pillow_heif  # an extra
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _is_heif(start: bytes) -> bool:
    """Whether a file begins as HEIF, but not as AVIF, which shares some of its brands."""
    brands = _brands(start)
    return not brands.isdisjoint(HEIF_BRANDS) and brands.isdisjoint(AVIF_BRANDS)


def _brands(start: bytes) -> set[bytes]:
    """The brands in the box `ftyp` with which a file begins (ISO/IEC 14496-12); empty if none."""
    if start[4:8] != b"ftyp":
        return set()
    length = min(int.from_bytes(start[:4]), len(start))
    return {start[8:12], *(start[place : place + 4] for place in range(16, length, 4))}


def describe_contents(path: Path) -> str:
    """Say what a file that no decoder accepts seems to be, and what to do about it."""
    with open_to_read(path) as file:
        start = file.read(_HEAD)
    if not start:
        return "the file is empty"
    if start.startswith(GIT_LFS_POINTER):
        return "this is a git-lfs pointer; run `git lfs pull` to get the file itself"
    if not _brands(start).isdisjoint(AVIF_BRANDS):
        return "this is AVIF, but it is damaged"
    if _is_heif(start):
        return (
            "this is HEIC; run `pip install pillow-heif` if it is missing, or save the picture as "
            "JPEG or PNG"
        )
    if start.isascii() and b"\0" not in start:
        return "the file holds text"
    return "its format is unknown, or it is damaged"


def _to_rgb(image: Image.Image) -> Frame:
    """Convert to uint8 RGB, H x W x 3, band by band.

    Pillow takes 4 bytes a pixel and the result 3; another whole copy would take too much memory.
    """
    width, height = image.size
    result = np.empty((height, width, 3), np.uint8)
    num_rows = max(1, BAND // width)
    for top in range(0, height, num_rows):
        bottom = min(top + num_rows, height)
        result[top:bottom] = _band_to_rgb(image.crop((0, top, width, bottom)))
    return result


def _band_to_rgb(image: Image.Image) -> Frame:
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow would clip instead of scale
        grey = np.rint(np.asarray(image, dtype=np.float32) / 257).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        return over_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _upright(picture: Frame, orientation: int) -> Frame:
    """Turn and mirror a picture as EXIF's tag 274 says; orientations 5 to 8 exchange its sides."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)
