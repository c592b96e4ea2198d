"""Still images: reading, writing, and fitting frames to a size without squashing them."""

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from datasets.crops import centre_box, cut_out
from datasets.source import Frame, Frames
from errors import UserError
from files import GIT_LFS_POINTER, replacing

Fit = Literal["crop", "pad"]

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".j2k", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi"),
)
WRITTEN_SUFFIXES = (".png", ".jpg", ".jpeg")
# Of large pictures, which are read all the same. Set here, once: filters are those of all threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def read_image(path: Path | str) -> Frame:
    """A still image as uint8 RGB, H x W x 3, turned upright as its EXIF orientation says.

    Grey, palette and 16-bit images are converted; transparency is composited on white.

    Raises:
        UserError: there is no such file, or it is not an image.
    """
    path = Path(path)
    try:
        with open_image(path) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: not an image: this is a folder") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image: {describe_contents(path)}") from None
    # Pillow reports damage as any of these, depending on the format.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not an image that can be read: {error}") from None


def open_image(path: Path) -> Image.Image:
    """As Pillow does, without its warning of large pictures; HEIC where pillow-heif is installed.

    Raises:
        OSError, and many others: see `read_image`.
    """
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        if not _is_heif(_first_bytes(path)) or not _register_heif():
            raise
        return Image.open(path)


def _register_heif() -> bool:
    """Whether Pillow can read HEIC from now on."""
    try:
        import pillow_heif  # an extra
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _is_heif(start: bytes) -> bool:
    """Whether a file begins as ISO/IEC 23008-12 says: a box `ftyp` with one of its brands."""
    length = min(int.from_bytes(start[:4]), len(start))
    brands = {start[8:12], *(start[place : place + 4] for place in range(16, length, 4))}
    return start[4:8] == b"ftyp" and not brands.isdisjoint(HEIF_BRANDS)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def describe_contents(path: Path) -> str:
    """What a file that no decoder accepts seems to be, and what to do about it."""
    start = _first_bytes(path)
    if not start:
        return "the file is empty"
    if start.startswith(GIT_LFS_POINTER):
        return "this is a git-lfs pointer; run `git lfs pull` to get the file itself"
    if _is_heif(start):
        return (
            "this is HEIC; run `pip install pillow-heif` if it is missing, or save the picture as "
            "JPEG or PNG"
        )
    if start.isascii() and b"\0" not in start:
        return "the file holds text"
    return "its format is unknown, or it is damaged"


def _to_rgb(image: Image.Image) -> Frame:
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow would clip instead of scale
        grey = np.rint(np.asarray(image, dtype=np.float32) / 257).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        return over_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB")).copy()


def over_white(rgba: NDArray[np.uint8]) -> Frame:
    """Composite H x W x 4 on white, as a page shows it; opaque pixels keep their exact value."""
    alpha = rgba[..., 3:].astype(np.uint16)
    blend = rgba[..., :3] * alpha + 255 * (255 - alpha)
    return ((blend + 127) // 255).astype(np.uint8)


def write_image(path: Path | str, frame: Frame) -> None:
    """Write H x W x 3 as .png or .jpg (by the suffix): whole, or not at all.

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITTEN_SUFFIXES:
        raise UserError(f"{path}: cannot write a {path.suffix or 'nameless'} image; use .png, .jpg")
    with replacing(path) as temporary:
        Image.fromarray(frame).save(temporary, quality=95)


def fit_frames(frames: Frames, size: tuple[int, int], fit: Fit) -> Frames:
    """Scale N x H x W x 3 to `size` (height, width) without changing the aspect ratio.

    `crop` fills the size and cuts what sticks out, `pad` fits inside and pads with black; both are
    centred and anti-aliased (Lanczos). Frames that have the size already are returned as they are.
    """
    if frames.shape[1:3] == size:
        return frames
    if fit == "pad":
        return np.stack([_pad(Image.fromarray(frame), *size) for frame in frames])
    height, width = frames.shape[1:3]
    box = centre_box((height, width), size)
    return np.stack([cut_out(frame, box, size) for frame in frames])


def _pad(image: Image.Image, height: int, width: int) -> Frame:
    scale = min(width / image.width, height / image.height)
    inner_width = min(width, max(1, round(image.width * scale)))
    inner_height = min(height, max(1, round(image.height * scale)))
    padded = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    padded[top : top + inner_height, left : left + inner_width] = np.asarray(
        image.resize((inner_width, inner_height), Image.Resampling.LANCZOS)
    )
    return padded
