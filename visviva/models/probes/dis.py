"""Dense Inverse Search optical flow (Kroeger et al., arXiv 1603.03590) from OpenCV: for scores and gates, without gradient.

The ``medium`` preset: on rendered scenes with known motion the faster presets under-read the acceleration of textured
objects by tens of per cent. The preset was made for large images and skips the finest scale; small ones are enlarged first
(without it, objects of 12 px in 64 x 64 images read a third too slow).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.physics.measurement import Measurement, check_frames


class DIS:
    """Flow probe of another kind than `LucasKanade`: what both see is likely motion, what one sees is likely a trick.

    Runs on the CPU whatever the device of the frames; the flow comes back to that device.

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
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B T N H W"] | None = None
    ) -> Measurement:
        """Measure the flow; ``masks`` are passed on."""
        import cv2

        check_frames(frames, fps)
        estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
        factor = -(-self.least_side // min(frames.shape[-2:]))
        weights = frames.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
        grey = ((frames.detach() * weights).sum(2) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        flow = np.stack([_clip(estimator, [_enlarged(image, factor) for image in clip], factor) for clip in grey])
        noise = torch.full_like(fps, self.noise, dtype=torch.float32)
        return Measurement(fps=fps, flow=torch.from_numpy(flow).to(frames.device), masks=masks, noise=noise)


def _enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    import cv2

    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else image


def _clip(estimator: Any, images: list[np.ndarray], factor: int) -> np.ndarray:
    """Flow of consecutive images (T-1, 2, h, w) [px], averaged back over blocks of factor x factor pixels."""
    flows = [estimator.calc(one, two, None) for one, two in pairwise(images)]
    small = flows if factor == 1 else [_reduced(flow, factor) for flow in flows]
    return np.ascontiguousarray(np.stack(small).transpose(0, 3, 1, 2), dtype=np.float32)


def _reduced(flow: np.ndarray, factor: int) -> np.ndarray:
    import cv2

    size = (flow.shape[1] // factor, flow.shape[0] // factor)
    return cv2.resize(flow, size, interpolation=cv2.INTER_AREA) / np.float32(factor)
