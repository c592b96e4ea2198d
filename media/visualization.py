"""Draws the outputs of the networks: keypoints, maps, and grids of images with titles."""

import colorsys
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from modules.geometry import coordinate_grid, resize

_TITLE_HEIGHT = 14  # pixels: the default bitmap font and a small margin
_MIN_CELL = 96  # small frames are enlarged so that titles and keypoints can be read


def palette(count: int, like: Tensor) -> Tensor:
    """Return `count` well-separated colours, count x 3 in [0, 1], on the device of `like`."""
    colors = [colorsys.hsv_to_rgb(i / count, 0.85, 1.0) for i in range(count)]
    return torch.tensor(colors, device=like.device, dtype=like.dtype)


def draw_keypoints(frames: Tensor, points: Tensor, radius: float = 0.04) -> Tensor:
    """Draw a disc for each of `points` (B x K x 2, in [-1, 1]) on `frames` (B x 3 x H x W).

    Keypoint k has the same colour in every frame; a dark rim keeps it visible on any background.
    """
    height, width = frames.shape[-2:]
    points = points.to(frames.dtype)
    grid = coordinate_grid(height, width, frames)
    aspect = torch.tensor((width / height, 1.0), device=frames.device, dtype=frames.dtype)
    for k, color in enumerate(palette(points.shape[1], frames)):
        distance = ((grid - points[:, k, None, None]) * aspect).norm(dim=-1).unsqueeze(1)
        frames = torch.where(distance < 1.4 * radius, torch.zeros_like(frames), frames)
        frames = torch.where(distance < radius, color.view(1, 3, 1, 1), frames)
    return frames


def grey_to_rgb(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Turn single-channel maps (B x 1 x h x w in [0, 1]) into grey pictures, B x 3 x *size."""
    return resize(maps, size).expand(-1, 3, -1, -1)


def colorize_weights(weights: Tensor, size: tuple[int, int]) -> Tensor:
    """Turn softmax weights (B x (K+1) x h x w) into pictures, B x 3 x *size.

    The background is black; keypoint k has the colour that `draw_keypoints` gives it.
    """
    colors = palette(weights.shape[1] - 1, weights)
    return resize(torch.einsum("bkhw,kc->bchw", weights[:, 1:], colors), size)


def to_uint8(images: Tensor) -> np.ndarray:
    """Convert images in [0, 1], ... x 3 x H x W, to uint8 ... x H x W x 3 on the CPU."""
    pixels = images.detach().float().mul(255).round().clamp(0, 255).to(torch.uint8)
    return pixels.movedim(-3, -1).cpu().numpy()


def titled_grid(columns: Mapping[str, Tensor]) -> np.ndarray:
    """Make one picture, uint8 H x W x 3: a column with a title for each entry, a row per sample."""
    cells = {title: to_uint8(images) for title, images in columns.items()}
    height, width = next(iter(cells.values())).shape[1:3]
    zoom = max(1, -(-_MIN_CELL // min(height, width)))
    body = np.concatenate(
        [np.concatenate(list(images), axis=0) for images in cells.values()], axis=1
    )
    body = body.repeat(zoom, axis=0).repeat(zoom, axis=1)
    canvas = Image.new("RGB", (body.shape[1], body.shape[0] + _TITLE_HEIGHT), "white")
    canvas.paste(Image.fromarray(body), (0, _TITLE_HEIGHT))
    draw = ImageDraw.Draw(canvas)
    for i, title in enumerate(cells):
        draw.text((i * width * zoom + 3, 1), title, fill="black")
    return np.asarray(canvas)
