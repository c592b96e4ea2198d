"""How well predicted frames change over time, whatever each of them looks like."""

import torch
from torch import Tensor


def temporal_difference(
    prediction: Tensor, target: Tensor, previous: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """mean|change of the prediction - change of the truth| from the frame before: T.

    0 for a prediction that is off by the same image throughout; what flickers or stands still is
    not. A clip may come in parts: each is given the frames before it.

    Args:
        prediction, target: consecutive frames of one clip, T x 3 x H x W in [0, 1].
        previous: the predicted and the true frame before them, 3 x H x W each; None at the start
            of a clip, whose first frame gets NaN.
    """
    error = prediction - target  # whose change is the difference of the changes
    if previous is not None:
        before = previous[0] - previous[1]
        return torch.cat((before.unsqueeze(0), error)).diff(dim=0).abs().mean(dim=(1, 2, 3))
    undefined = error.new_full((1,), torch.nan)
    return torch.cat((undefined, error.diff(dim=0).abs().mean(dim=(1, 2, 3))))
