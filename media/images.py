"""Reads and writes still image files safely, and fits frames to a size without squashing them.

`frame_conversion.py` is for decoded video frames, `image_clips.py` for clips made of image files.
"""

import re
import warnings
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, Literal

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from common.errors import UserError
from common.files import GIT_LFS_POINTER, replacing
from common.limits import LIMITS, Limits, check_bytes, check_pixels, too_many
from common.safe_paths import require_plain_file
from media.crops import centre_box, cut_out
from media.frames import Frame, Frames
from media.tiff_tags import EXIF_HEAD, stated_bytes

Fit = Literal["crop", "pad"]

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".j2k", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi"),
)
# Formats that are read, by Pillow's names. It knows 40 more; some start other programs (EPS).
FORMATS: Final = (
    *("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF"),
    *("AVIF", "HEIF", "JPEG2000", "TGA", "PPM", "QOI"),
)
WRITTEN_SUFFIXES = (".png", ".jpg", ".jpeg")
JPEG_QUALITY: Final = 95
# Pillow's warning of large pictures, which are read anyway. Filters hold for all threads: set once.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
MAX_SCANS: Final = 200  # of a JPEG; progressive ones have some 10
_START_OF_SCAN: Final = b"\xff\xda"
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF
BAND: Final = 2**20  # pixels that are converted at once, which bounds the memory


def read_image(path: Path | str, limits: Limits = LIMITS) -> Frame:
    """Read a still image as uint8 RGB, H x W x 3, turned upright by its EXIF orientation.

    Grey, palette and 16-bit images are converted; transparency is composited on white. From an
    animation the first picture is read. Reading takes at most 7 bytes of memory a pixel.

    Raises:
        UserError: there is no such file, it is not an image, or it is larger than `limits` allow.
    """
    path = Path(path)
    try:
        with open_image(path, limits) as image:
            image.load()  # some formats are turned by this already, and say so
            exif = image.info.get("exif") or b""
            _check_tags(path, BytesIO(exif.removeprefix(EXIF_HEAD)), len(exif))
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            picture = _to_rgb(image)
        return _upright(picture, orientation)
    except Exception as error:
        raise image_error(path, error) from None


def open_image(path: Path, limits: Limits = LIMITS) -> Image.Image:
    """Open an image with Pillow if its format is in FORMATS; HEIC needs pillow-heif installed.

    Raises:
        UserError: the picture is larger than `limits` allow.
        Exception: of any kind, for other reasons; see `image_error`.
    """
    require_plain_file(path)
    check_bytes(path, limits.picture)
    if Image.MAX_IMAGE_PIXELS is not None and limits.picture > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limits.picture  # Pillow's own, which would end it with an error
    try:
        image = _open(path)
    except UnidentifiedImageError:
        if not _is_heif(_first_bytes(path)) or not _register_heif():
            raise
        image = _open(path)
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        if found is None:
            raise
        number = too_many(int(found[1]), limits.picture)
        raise UserError(f"{path}: a picture with too many pixels, {number}") from None
    try:
        check_pixels(path, *image.size, limits.picture, "a picture")
        _check_parts(path, image, limits)
    except Exception:
        image.close()
        raise
    return image


def _check_parts(path: Path, image: Image.Image, limits: Limits) -> None:
    """Raise UserError if a picture takes much more work to decode than its size suggests."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # a tile may be larger than the picture
        width, height = (int(image.tag_v2.get(tag, 0)) for tag in (_TILE_WIDTH, _TILE_LENGTH))
        check_pixels(path, width, height, limits.picture, "tiles")
    if image.format in ("JPEG", "MPO"):  # each scan goes over all of the picture
        num_scans = count_scans(path.read_bytes())
        if num_scans > MAX_SCANS:
            raise UserError(f"{path}: a JPEG of {num_scans} scans; at most {MAX_SCANS} are read")


def count_scans(content: bytes) -> int:
    """Upper bound of the number of scans of a JPEG, each of which may cover the whole picture."""
    return content.count(_START_OF_SCAN)


def image_error(path: Path, error: Exception) -> UserError:
    """Turn an error of `open_image`, or of Pillow later, into a message for the user."""
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
    return UserError(f"{path}: not an image that can be read: {reason}")


def _check_tags(path: Path, file: BinaryIO, num_bytes: int) -> None:
    """Raise UserError if the tags of a TIFF, or of Exif data, share the same bytes."""
    if stated_bytes(file) > 2 * num_bytes + 2**16:  # short values are in the tags themselves
        raise UserError(f"{path}: its tags state more bytes than it has; write the picture anew")


def _open(path: Path) -> Image.Image:
    # By Pillow itself: imageio would try every format that Pillow knows, whatever FORMATS says, and
    # hides the tiles of TIFF, which are checked before it is decoded.
    Image.init()
    with path.open("rb") as file:
        _check_tags(path, file, path.stat().st_size)
    return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])


def _register_heif() -> bool:
    """Let Pillow read HEIC; False if pillow-heif is not installed."""
    try:
        import pillow_heif  # an extra
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _is_heif(start: bytes) -> bool:
    """Whether a file begins as HEIF: a box `ftyp` with one of its brands (ISO/IEC 23008-12)."""
    length = min(int.from_bytes(start[:4]), len(start))
    brands = {start[8:12], *(start[place : place + 4] for place in range(16, length, 4))}
    return start[4:8] == b"ftyp" and not brands.isdisjoint(HEIF_BRANDS)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def describe_contents(path: Path) -> str:
    """Say what a file that no decoder accepts seems to be, and what to do about it."""
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


def over_white(rgba: NDArray[np.uint8]) -> Frame:
    """Composite H x W x 4 on white, as a page shows it; opaque pixels keep their exact value."""
    height, width = rgba.shape[:2]
    result = np.empty((height, width, 3), np.uint8)
    num_rows = max(1, BAND // width)
    for top in range(0, height, num_rows):
        band = rgba[top : top + num_rows]
        alpha = band[..., 3:].astype(np.uint16)
        blend = band[..., :3] * alpha + 255 * (255 - alpha)
        result[top : top + num_rows] = (blend + 127) // 255
    return result


def write_image(path: Path | str, frame: Frame) -> None:
    """Write H x W x 3 as .png or .jpg (by the suffix): whole, or not at all.

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITTEN_SUFFIXES:
        raise UserError(f"{path}: cannot write a {path.suffix or 'nameless'} image; use .png, .jpg")
    with replacing(path) as temporary:
        temporary.write_bytes(encode_image(frame, path.suffix))


def encode_image(frame: NDArray[np.uint8], suffix: str) -> bytes:
    """H x W x 3, or H x W x 4 (RGBA) for .png, as the content of a file of WRITTEN_SUFFIXES.

    In memory: into a file Pillow would write a JPEG at once and not see that a full disk took only
    its beginning; and of some names imageio makes an address, or a member of a zip file.
    """
    content: bytes = iio.imwrite(
        "<bytes>",
        frame,
        plugin="pillow",
        extension=suffix.lower(),
        is_batch=False,
        quality=JPEG_QUALITY,  # PNG has none
    )
    return content


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
