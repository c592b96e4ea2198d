"""Mask metric: overlap of a foreground mask with the true one."""

from torch import Tensor


def mask_iou(prediction: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of each mask, B; 1 where both are empty.

    Args:
        prediction, truth: bool, B x 1 x H x W, true = foreground.
    """
    intersection = (prediction & truth).sum(dim=(1, 2, 3))
    union = (prediction | truth).sum(dim=(1, 2, 3))
    return (intersection / union.clamp(min=1)).where(union > 0, 1.0)
