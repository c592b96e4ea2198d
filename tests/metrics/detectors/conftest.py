"""Pictures of people for the tests of detectors."""

import numpy as np
import pytest
from skimage.data import astronaut

from media.video import open_clip


@pytest.fixture(scope="session")
def portrait():
    """A person from the hips up, 512 x 512."""
    return astronaut()


@pytest.fixture(scope="session")
def head(portrait):
    """A function that cuts a head out of `portrait`, 256 x 256, shifted by (x, y) pixels."""

    def cut(x=0, y=0):
        return portrait[20 - y : 276 - y, 96 - x : 352 - x]

    return cut


@pytest.fixture
def blank():
    return np.full((256, 256, 3), 128, np.uint8)


@pytest.fixture(scope="session")
def heads(shared_data):
    """Some frames of two people, 256 x 256."""
    paths = sorted((shared_data / "heads" / "test").glob("*.mp4"))
    return [open_clip(path).read([0, 50, 100]) for path in paths]


@pytest.fixture(scope="session")
def body(shared_data):
    """A frame of somebody from head to foot, 256 x 256."""
    (path,) = (shared_data / "taichi" / "test").glob("*.mp4")
    return open_clip(path).read([0])[0]
