"""Temporal metric: compares the changes from frame to frame of a prediction and of the truth."""

import torch
from torch import Tensor


def temporal_difference(
    prediction: Tensor, target: Tensor, previous: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """mean|change of the prediction - change of the truth| since the previous frame: T.

    It is 0 if the error is the same image in all frames; it grows if the prediction flickers or
    stands still. A clip may come in parts, each with the frames before it as `previous`.

    Args:
        prediction, target: consecutive frames of one clip, T x 3 x H x W in [0, 1].
        previous: the predicted and the true frame before them, 3 x H x W each; None at the start
            of a clip, where the first frame gets NaN.
    """
    error = prediction - target  # its change is the difference of the two changes
    if previous is not None:
        before = previous[0] - previous[1]
        return torch.cat((before.unsqueeze(0), error)).diff(dim=0).abs().mean(dim=(1, 2, 3))
    undefined = error.new_full((1,), torch.nan)
    return torch.cat((undefined, error.diff(dim=0).abs().mean(dim=(1, 2, 3))))
