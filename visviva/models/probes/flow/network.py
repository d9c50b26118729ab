"""Flow probes made of networks: `FlowNetwork`, whose weights ship with the package, and `RAFT` with public weights of yours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from visviva.models.probes.flow.pyramid import FlowPyramid
from visviva.models.probes.flow.raft import LEVELS, RAFTNetwork, load_raft
from visviva.models.probes.flow.weights import filled, read
from visviva.physics.kinematics import displaced
from visviva.physics.measurement import Measurement, check_frames

CHUNK = 2**21
"""Pixels of image pairs that are worked on at once; larger clips go in parts, which are recomputed in the backward pass."""

Pairs = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class FlowNetwork:
    """Differentiable flow probe: the project's own small network, trained on drawn and simulated scenes.

    Its confidence is ``exp(-E|e|)`` with the network's own estimate of the error e [px], detached. The gradient with respect
    to the frames is complete: nothing is cut between the updates. Pictures of fewer than 32 px a side are too small for it: in
    a quarter of drawn ones of 17 px some flow is larger than the picture.

    Args:
        path: ``.safetensors`` of other weights of the same network; None takes the shipped ones.
        noise: standard error of an object's measured velocity per coordinate [px/frame], as measured on simulated clips.

    Raises:
        InputError: weights that are not this network's.

    Example::

        measured = FlowNetwork()(frames, torch.tensor([30.0]))
        measured.flow, measured.confidence  # (B, T-1, 2, H, W) px/frame, (B, T-1, 1, H, W)
    """

    name = "flow_network"
    differentiable = True
    measures = frozenset({"flow", "confidence", "noise"})

    def __init__(self, path: str | Path | None = None, noise: float = 0.07) -> None:
        path = path or str(resources.files("visviva") / "models" / "weights" / "flow-small" / "weights.safetensors")
        self.network = filled(FlowPyramid(), read(path), f"{path}: weights of the flow network")
        self.noise = noise

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B T N H W"] | None = None
    ) -> Measurement:
        """Measure flow and confidence; ``masks`` are passed on."""
        return _measured(self._pairs, frames, fps, masks, self.noise)

    def _pairs(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        flow, scale = self.network.to(first.device)(first, second)
        return flow, torch.exp(-2 * scale.detach().exp())


class RAFT:
    """Differentiable flow probe with torchvision's public RAFT weights, read from a local file.

    Smaller images are enlarged to 128 pixels (bilinear, by a whole factor). Confidence is the consistency of the flows forward
    and backward, ``exp(-|u(x) + u'(x + u(x))|^2 / s^2)`` with s = 1 px, detached; it costs a second estimate.

    Args:
        path: ``raft_small_*`` or ``raft_large_*``, ``.pth`` or ``.safetensors``.
        size: small or large; None reads it off the file.
        updates: of the flow; accuracy saturates at about 12 to 20.
        noise: standard error of an object's measured velocity per coordinate [px/frame].
        options: of `RAFTNetwork`: ``detach``, ``checkpointing``, ``chunk``.

    Example::

        measured = RAFT("raft_small_C_T_V2-01064c6d.pth")(frames, torch.tensor([30.0]))
    """

    name = "raft"
    differentiable = True
    measures = frozenset({"flow", "confidence", "noise"})

    def __init__(
        self, path: str | Path, size: str | None = None, updates: int = 12, noise: float = 0.05, **options: Any
    ) -> None:
        self.network: RAFTNetwork = load_raft(path, size, **options)
        self.updates, self.noise = updates, noise

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B T N H W"] | None = None
    ) -> Measurement:
        """Measure flow and confidence; ``masks`` are passed on."""
        return _measured(self._pairs, frames, fps, masks, self.noise)

    def _pairs(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        flow = self._flow(first, second)
        with torch.no_grad():
            back = self._flow(second, first)
            apart = (flow + displaced(back, flow)).square().sum(1, keepdim=True)
        return flow, torch.exp(-apart)

    def _flow(self, first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[-2:]
        factor = max(1, -(-8 * 2**LEVELS // min(height, width)))
        grown = partial(torch.nn.functional.interpolate, scale_factor=factor, mode="bilinear", align_corners=False)
        both = grown(torch.cat([first, second])) if factor > 1 else torch.cat([first, second])
        both = pad(2 * both - 1, (0, -both.shape[-1] % 8, 0, -both.shape[-2] % 8), mode="replicate")
        flow = self.network.to(first.device)(*both.chunk(2), self.updates)[-1][..., : factor * height, : factor * width]
        return torch.nn.functional.avg_pool2d(flow, factor) / factor if factor > 1 else flow


def _measured(pairs: Pairs, frames: Tensor, fps: Tensor, masks: Tensor | None, noise: float) -> Measurement:
    """Measure all consecutive pairs, in parts where they are many, in float32 whatever the autocast."""
    check_frames(frames, fps)
    clips, steps = frames.shape[0], frames.shape[1] - 1
    chunk, parts = max(1, CHUNK // (frames.shape[-2] * frames.shape[-1])), []
    with torch.autocast(frames.device.type, enabled=False):
        first, second = frames[:, :-1].flatten(0, 1).float(), frames[:, 1:].flatten(0, 1).float()
        for one, two in zip(first.split(chunk), second.split(chunk), strict=True):
            many = len(first) > chunk and torch.is_grad_enabled()
            parts.append(checkpoint(pairs, one, two, use_reentrant=False) if many else pairs(one, two))
    flow, confidence = (torch.cat(part).unflatten(0, (clips, steps)) for part in zip(*parts, strict=True))
    error = torch.full((clips,), noise, dtype=flow.dtype, device=flow.device)
    return Measurement(fps=fps, flow=flow, confidence=confidence, masks=masks, noise=error)
