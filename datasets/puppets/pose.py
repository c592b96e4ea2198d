"""The pose of a puppet, and the smooth random motion through poses in a clip."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Pose(NamedTuple):
    """A posture that any puppet can take. Left and right are those of the picture.

    Joint angles are radians. An arm or leg hangs straight down at 0 and rises outwards to its side
    for positive angles; a positive elbow or knee turns the lower part further the same way. Tilt,
    lean and rotation are clockwise in the picture.
    """

    left_shoulder: float
    left_elbow: float
    right_shoulder: float
    right_elbow: float
    left_hip: float
    left_knee: float
    right_hip: float
    right_knee: float
    head_tilt: float  # of the head against the torso
    head_turn: float  # of the face: -1 looks to the left, 1 to the right
    lean: float  # of the torso against the hips
    rotation: float  # of the whole body about its middle
    scale: float  # standing height, without ears and hat, over the frame's shorter side
    x: float  # of the body's middle from the frame's, over the shorter side; right is positive
    y: float  # down is positive


_SHOULDER = (1.1, 1.8, 0.6, 1.0)
_ELBOW = (-0.3, 0.5, 0.6, 1.1)
_HIP = (0.2, 0.4, 0.2, 0.4)
_KNEE = (-0.4, 0.0, 0.3, 0.55)

# Ranges for each value of a pose: centre from, to, amplitude from, to. The body's middle stays
# below the frame's, because ears and hats rise above the head.
_SWINGS = np.array([
    _SHOULDER, _ELBOW, _SHOULDER, _ELBOW, _HIP, _KNEE, _HIP, _KNEE,
    (-0.08, 0.08, 0.12, 0.28),  # head_tilt
    (-0.2, 0.2, 0.4, 0.8),  # head_turn
    (-0.05, 0.05, 0.06, 0.16),  # lean
    (-0.06, 0.06, 0.08, 0.22),  # rotation
    (0.7, 0.76, 0.02, 0.06),  # scale
    (-0.03, 0.03, 0.07, 0.12),  # x
    (0.02, 0.045, 0.025, 0.05),  # y
])  # fmt: skip

_LIMITED = np.isin(Pose._fields, ("head_turn", "scale", "y"))

_FREQUENCIES = (0.45, 0.9)  # hertz: about one swing in the 32 frames of a default clip
_OVERTONE = 0.3  # share of the second, independent sinusoid


class Motion(NamedTuple):
    """An endless dance: every value of the pose is a centre plus two sinusoids of the time."""

    centre: NDArray[np.float64]  # values of a pose
    amplitude: NDArray[np.float64]
    frequency: NDArray[np.float64]  # 2 x values, hertz
    phase: NDArray[np.float64]  # 2 x values, radians

    def pose(self, seconds: float) -> Pose:
        """Return the pose at a time; each value is within centre +- amplitude."""
        main, overtone = np.sin(math.tau * self.frequency * seconds + self.phase)
        swing = (1 - _OVERTONE) * main + _OVERTONE * overtone
        return Pose(*(self.centre + self.amplitude * swing).tolist())


def sample_motion(rng: np.random.Generator, scale: float = 1.0) -> Motion:
    """Draw a random dance: waving arms, stepping legs, a body that sways, turns and changes size.

    `scale` multiplies the amplitudes, except for size, height and turn of the head, which the frame
    or the face limits.
    """
    centre_from, centre_to, amplitude_from, amplitude_to = _SWINGS.T
    pair = (2, len(Pose._fields))
    return Motion(
        centre=rng.uniform(centre_from, centre_to),
        amplitude=rng.uniform(amplitude_from, amplitude_to) * np.where(_LIMITED, 1.0, scale),
        frequency=rng.uniform(*_FREQUENCIES, pair),
        phase=rng.uniform(0, math.tau, pair),
    )
