"""Detectors without a network, in place of those that may be installed."""

import numpy as np

from metrics.detectors.detector import Description


class Brightness:
    """A detector to which brightness is the probability; counts the frames that it gets."""

    description = Description("brightness", "none", "none", "none")

    def __init__(self):
        self.num_frames = 0

    def region(self, frame):
        return self.probability(frame) > 0.5

    def probability(self, frame):
        self.num_frames += 1
        return frame.mean(axis=2, dtype=np.float32) / 255


class Contrast(Brightness):
    """Brightness, stretched to [0, 1] in each frame: pictures of small networks are nearly grey."""

    def probability(self, frame):
        level = super().probability(frame)
        return (level - level.min()) / max(level.max() - level.min(), 1e-6)


def contrast(frames):
    """What `Contrast` finds in frames, N x H x W x 3."""
    return np.stack([Contrast().probability(frame) for frame in frames])
