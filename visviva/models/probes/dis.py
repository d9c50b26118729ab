"""Dense Inverse Search optical flow (Kroeger et al., arXiv 1603.03590) from OpenCV: for scores and gates, without gradient.

The ``medium`` preset: on rendered scenes with known motion the faster presets under-read the acceleration of textured
objects by tens of per cent. The preset was made for large images and skips the finest scale; small ones are enlarged first
(without it, objects of 12 px in 64 x 64 images read a third too slow).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from visviva.physics.measurement import Measurement, check_frames


class DIS:
    """Flow probe of another kind than `LucasKanade`: what both see is likely motion, what one sees is likely a trick.

    Runs on the CPU whatever the device of the frames, clips side by side in as many threads as torch may use; the flow comes
    back to that device.

    Args:
        least_side: images with a shorter side are enlarged (bicubic, by a whole factor) before estimation [px].
        noise: standard error of an object's measured velocity per coordinate [px/frame], as measured on simulated clips.

    Example::

        measured = DIS()(frames, torch.tensor([30.0]))
    """

    name = "dis"
    differentiable = False
    measures = frozenset({"flow", "noise"})

    def __init__(self, least_side: int = 192, noise: float = 0.06) -> None:
        self.least_side, self.noise = least_side, noise

    def __call__(
        self,
        frames: Float[Tensor, "B T 3 H W"] | UInt8[Tensor, "B T 3 H W"],
        fps: Float[Tensor, " B"],
        masks: Float[Tensor, "B T N H W"] | None = None,
    ) -> Measurement:
        """Measure the flow; ``masks`` are passed on. Frames are floats in [0, 1], or uint8 as they were decoded (quicker)."""
        check_frames(frames, fps, as_decoded=True)
        clips, count, _, height, width = frames.shape
        factor = -(-self.least_side // min(height, width))
        images = (frames if frames.dtype == torch.uint8 else _grey(frames.detach())).cpu().numpy()
        flow = np.empty((clips, count - 1, 2, height, width), np.float32)
        with ThreadPoolExecutor(min(clips, torch.get_num_threads())) as threads:  # OpenCV lets go of the interpreter
            list(threads.map(partial(_clip, factor=factor), images, flow))
        noise = torch.full_like(fps, self.noise, dtype=torch.float32)
        return Measurement(fps=fps, flow=torch.from_numpy(flow).to(frames.device), masks=masks, noise=noise)


def _enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the luma of an image (h, w) or, of colours, (3, h, w), enlarged by a whole factor."""
    import cv2

    image = image if image.ndim == 2 else cv2.cvtColor(cv2.merge(list(image)), cv2.COLOR_RGB2GRAY)
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else image


def _grey(frames: Tensor) -> Tensor:
    """Luma (B, T, H, W), uint8."""
    shares = frames.new_tensor([[255 * 0.299, 255 * 0.587, 255 * 0.114]])
    grey = (shares @ frames.flatten(3)).view(frames.shape[0], frames.shape[1], *frames.shape[3:])
    return grey.round_().clamp_(0, 255).to(torch.uint8)


def _clip(images: np.ndarray, flow: np.ndarray, factor: int) -> None:
    """Write the flow of consecutive images (T-1, 2, h, w) [px], averaged back over blocks of factor x factor pixels."""
    import cv2

    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    for step, (one, two) in enumerate(pairwise(_enlarged(image, factor) for image in images)):
        found = estimator.calc(one, two, None)
        found = _reduced(found, factor) if factor > 1 else found
        for axis in range(2):
            cv2.extractChannel(found, axis, flow[step, axis])


def _reduced(flow: np.ndarray, factor: int) -> np.ndarray:
    import cv2

    size = (flow.shape[1] // factor, flow.shape[0] // factor)
    return cv2.resize(flow, size, interpolation=cv2.INTER_AREA) / np.float32(factor)
