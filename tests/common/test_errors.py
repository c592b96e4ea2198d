"""Tests which errors of one job end all the others."""

import errno

import av
import pytest
import torch

from common.errors import UserError, ends_all
from media.video import VideoError


@pytest.mark.parametrize(
    ("error", "is_of_all"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (av.error.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), False),
        (av.error.InvalidDataError(1, "Invalid data"), False),
        (VideoError("a.mp4: frame 1 cannot be decoded"), False),
        (UserError("a.mp4: odd"), False),
        (RuntimeError("shapes differ"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_which_errors_end_all_jobs(error, is_of_all):
    assert ends_all(error) == is_of_all


def test_lack_of_memory_for_a_tensor_ends_all_jobs():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert ends_all(caught.value)
