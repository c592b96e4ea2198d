"""Reads and writes still image files safely, and fits frames to a size without squashing them.

`frame_conversion.py` is for decoded video frames, `image_clips.py` for clips made of image files,
`picture_files.py` for the decoding.
"""

from pathlib import Path
from typing import Final, Literal

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError
from common.files import replacing
from common.limits import LIMITS, Limits
from media.crops import centre_box, cut_out
from media.frames import Frame, Frames
from media.watched import read_picture

Fit = Literal["crop", "pad"]

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".j2k", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi"),
)
WRITTEN_SUFFIXES = (".png", ".jpg", ".jpeg")
JPEG_QUALITY: Final = 95
BAND: Final = 2**20  # pixels that are converted at once, which bounds the memory


def read_image(path: Path | str, limits: Limits = LIMITS) -> Frame:
    """Read a still image as uint8 RGB, H x W x 3, turned upright by its EXIF orientation.

    Grey, palette and 16-bit images are converted; transparency is composited on white. From an
    animation the first picture is read. It is decoded in another process, within limits of time and
    memory; both processes together take at most 7 bytes of memory a pixel for most formats.

    Raises:
        UserError: there is no such file, it is not an image, it is larger than `limits` allow, or
            takes too much time or memory to decode.
    """
    return read_picture(Path(path), limits)


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
