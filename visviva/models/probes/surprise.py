"""Surprise: how badly the frames that were seen predict the frames that follow, for `visviva.physics.laws.surprise`.

- `VJEPA2Surprise`: a frozen V-JEPA 2 predicts latents (WMReward, arXiv 2601.10553; reconstructed from its description).
  Leak-free: the context is encoded alone, so that attention cannot see the future that it is to predict.
- `Extrapolation`: no weights. Every pixel goes on with the velocity that it had, over the background seen before. It knows
  nothing of gravity, contacts or objects; a baseline that a learned predictor has to beat.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.models.probes.features import VJEPA2Features
from visviva.models.probes.lucas_kanade import LucasKanade
from visviva.physics.measurement import Measurement, Probe, check_frames


class VJEPA2Surprise:
    """Latent-prediction error of V-JEPA 2 in sliding windows of ``context`` + ``future`` frames.

    A model with random weights gives numbers that mean nothing: use trained ones.

    Args:
        features: the frozen model.
        context: frames that are seen, a multiple of the model's tubelet.
        future: frames that are predicted, likewise.
        stride: frames from one window to the next, likewise.
        distance: ``cosine``, mean of ``1 - cos`` (WMReward), or ``l1``, mean absolute difference (V-JEPA 2's own loss).

    Raises:
        InputError: windows that do not fit the tubelet or the clip; an unknown distance.

    Example::

        probe = VJEPA2Surprise(VJEPA2Features("weights/vjepa2-vitl-fpc64-256"), context=8, future=8)
        probe(frames, fps).surprise  # (B, windows)
    """

    name = "vjepa2_surprise"
    differentiable = True
    measures = frozenset({"surprise"})

    def __init__(
        self, features: VJEPA2Features, context: int = 8, future: int = 8, stride: int = 4, distance: str = "cosine"
    ) -> None:
        for name, frames in (("context", context), ("future", future), ("stride", stride)):
            if frames < 1 or frames % features.tubelet:
                raise InputError(f"{name} of {frames} frames does not fit; give a positive multiple of {features.tubelet}")
        if distance not in ("cosine", "l1"):
            raise InputError(f"distance {distance!r} is not known to the surprise of V-JEPA 2; use 'cosine' or 'l1'")
        self.features, self.distance = features, distance
        self.context, self.future, self.stride = context, future, stride

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B T N H W"] | None = None
    ) -> Measurement:
        """Measure surprise (B, K), one number per window; ``masks`` are passed on."""
        check_frames(frames, fps)
        window = self.context + self.future
        if frames.shape[1] < window:
            raise InputError(f"the clip has {frames.shape[1]} frames, fewer than a window of {window}; use a smaller one")
        starts = range(0, frames.shape[1] - window + 1, self.stride)
        found = [self._window(frames[:, start : start + window]) for start in starts]
        return Measurement(fps=fps, surprise=torch.stack(found, dim=1), masks=masks)

    def _window(self, frames: Tensor) -> Tensor:
        seen, whole = self.features.encode(frames[:, : self.context]), self.features.encode(frames)
        predicted = self.predict(seen, whole.shape[1])
        if self.distance == "l1":
            return (predicted - whole[:, seen.shape[1] :]).abs().mean((1, 2))
        likeness = torch.nn.functional.cosine_similarity(predicted, whole[:, seen.shape[1] :], dim=-1)
        return (1 - likeness).clamp(min=0).mean(1)

    def predict(self, seen: Float[Tensor, "B S D"], tokens: int) -> Float[Tensor, "B P D"]:
        """Return the predicted latents of the positions after those seen, up to ``tokens``."""
        index = torch.arange(tokens, device=seen.device).expand(seen.shape[0], -1)
        cut = seen.shape[1]
        return self.features.model.predictor(
            encoder_hidden_states=seen, context_mask=[index[:, :cut]], target_mask=[index[:, cut:]]
        ).last_hidden_state


class Extrapolation:
    """Error of the frame that constant velocities predict, root mean square per frame from the third on, in [0, 1].

    Each pixel of frame t is carried on by the motion that brought it there (flow measured from frame t back to t - 1) and
    splatted bilinearly, moving pixels over still ones; what nothing reaches keeps the mean of the frames seen so far.
    Differentiable with respect to the frames where the flow is.

    Args:
        flow: probe of the flow; `LucasKanade` by default.

    Example::

        Extrapolation()(frames, fps).surprise  # (B, T - 2)
    """

    name = "extrapolation"
    measures = frozenset({"surprise"})

    def __init__(self, flow: Probe | None = None) -> None:
        self.flow = flow or LucasKanade()

    @property
    def differentiable(self) -> bool:
        """Whether gradients reach the frames."""
        return self.flow.differentiable

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B T N H W"] | None = None
    ) -> Measurement:
        """Measure surprise (B, T - 2); ``masks`` are passed on."""
        check_frames(frames, fps, least=3)
        back = self.flow(frames[:, :-1].flip(1), fps).flow
        if back is None:
            raise InputError(f"the probe {self.flow.name!r} measured no flow to extrapolate; give a flow probe")
        onward = -back.flip(1)  # of frame t = 1..T-2, the motion that brought its pixels there
        steps = torch.arange(2, frames.shape[1], dtype=frames.dtype, device=frames.device)
        known = frames[:, :-1].cumsum(1)[:, 1:] / steps.view(1, -1, 1, 1, 1)
        predicted = _carried(frames[:, 1:-1].flatten(0, 1), onward.flatten(0, 1), known.flatten(0, 1))
        error = (predicted.view_as(known) - frames[:, 2:]).square().mean((2, 3, 4)).add(1e-12).sqrt()
        return Measurement(fps=fps, surprise=error, masks=masks)


def _carried(image: Tensor, by: Tensor, ground: Tensor) -> Tensor:
    """Splat image (M, 3, H, W) by a displacement (M, 2, H, W), bilinearly; ``ground`` shows where nothing lands."""
    height, width = image.shape[-2:]
    like: dict[str, Any] = {"dtype": image.dtype, "device": image.device}
    x = torch.arange(width, **like) + by[:, 0]
    y = torch.arange(height, **like)[:, None] + by[:, 1]
    strength = torch.exp(4 * by.norm(dim=1).clamp(max=2))  # moving pixels win over still ones
    layers = torch.cat([image * strength[:, None], strength[:, None]], dim=1).flatten(2)
    carried = torch.full_like(layers, 0.0)
    carried[:, 3] = 1e-3
    carried[:, :3] = 1e-3 * ground.flatten(2)
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = x.floor() + right, y.floor() + down
        share = (1 - (x - column).abs()) * (1 - (y - row).abs())
        share = share * ((column >= 0) & (column < width) & (row >= 0) & (row < height))
        place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long().flatten(1)
        carried = carried.scatter_add(2, place[:, None].expand(-1, 4, -1), layers * share.flatten(1)[:, None])
    return (carried[:, :3] / carried[:, 3:]).view_as(image)
