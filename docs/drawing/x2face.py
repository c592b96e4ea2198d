"""Figures of the motion model X2Face: embedded face, driving field, several sources."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from animation.branch_animators import frames_to_tensor
from branches.motion.x2face import X2FaceBranch
from datasets.source import ClipSource
from docs.drawing.canvas import DEVICE, GRID_LINES, NUM_EXAMPLES, cells, draw_grid, show
from docs.drawing.motion import example_frames
from evaluation.reconstruction import spread
from media.visualization import to_uint8
from modules.geometry import resize_grid
from modules.x2face import EmbeddedFace, compose_fields, sample_face

SCALE = 0.8  # of a picture
NUM_SOURCES = 3  # of one figure


@torch.inference_mode()
def draw_x2face(branch: X2FaceBranch, clips: ClipSource) -> Figure:
    """Draw source, embedded face, driving frame and prediction, and the fields of the sampling."""
    source, driving = example_frames(clips, NUM_EXAMPLES)
    face: EmbeddedFace = branch.embedding(source.unsqueeze(1))
    field = branch.driving(driving)
    composed = compose_fields(face.field, field)[:, 0]
    pictures = {
        "$S$": source,
        "$u_S$ on $S$": source,
        "$F$": face.image,
        "$D$": driving,
        "$u_D$ on $F$": face.image,
        r"$\hat{D}$": sample_face(face, field),
        "$u$ on $S$": source,
    }
    figure, axes = cells(len(source), len(pictures), list(pictures))
    for column, images in enumerate(pictures.values()):
        for row, image in enumerate(to_uint8(images)):
            show(axes[row][column], image)
    for column, grid in ((1, face.field[:, 0]), (4, field), (6, composed)):
        for row, points in enumerate(resize_grid(grid, GRID_LINES)):
            draw_grid(axes[row][column], points)
    return figure


@torch.inference_mode()
def draw_several_sources(branch: X2FaceBranch, clips: ClipSource) -> Figure:
    """Draw the embedded face of several frames of one clip, their shares in it, and predictions of
    the last frame by the first of them and by all.
    """
    count = min(NUM_EXAMPLES, len(clips.clips))
    titles = [f"$S_{i + 1}$" for i in range(NUM_SOURCES)]
    titles += [f"share of $S_{i + 1}$" for i in range(NUM_SOURCES)]
    titles += ["$F$", "$D$", "by $S_1$", "by all"]
    figure, axes = cells(count, len(titles), titles, SCALE)
    for index, row in enumerate(axes):
        moments = spread(clips.num_frames(index), NUM_SOURCES + 1)
        frames = frames_to_tensor(clips.read(index, moments), DEVICE)
        sources, driving = frames[:-1], frames[-1:]
        field = branch.driving(driving)
        face: EmbeddedFace = branch.embedding(sources.unsqueeze(0))
        one: EmbeddedFace = branch.embedding(sources[:1].unsqueeze(0))
        shares: Tensor = face.weight[0].unsqueeze(1).expand(-1, 3, -1, -1)
        predictions = sample_face(one, field), sample_face(face, field)
        pictures = torch.cat((sources, shares, face.image, driving, *predictions))
        for axis, picture in zip(row, to_uint8(pictures), strict=True):
            show(axis, picture)
    return figure
