"""Physics guidance: while a clip is sampled, move the predicted clean latents down the gradient of a verifier's loss.

At each of the last n sampler steps the predicted clean latents z are decoded, measured and judged, and the gradient of the
loss L with respect to z is taken through decoder, probe and laws (never through the denoiser). z then moves by

    delta = scale * L / |g|^2 * g,      g = dL/dz,      |delta| <= radius * |z|

per clip. L / |g|^2 is Polyak's step length (B. Polyak, Introduction to Optimization, 1987, sec. 5.3) for a loss whose least
value is 0, as every law's is; so ``scale`` has no unit, means the same for every law and model, and the step fades as the law
is obeyed. The loss-gradient correction of the clean prediction is that of universal guidance (arXiv 2302.07121) and FreeDoM
(arXiv 2303.09833); the step length and the radius are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics import Verdict

Decode = Callable[[Tensor], Tensor]
Segment = Callable[[Tensor], Tensor | None]
Judge = Callable[..., Verdict]


@dataclass
class PhysicsGuidance:
    """The ``guide`` of a backbone's ``sample``: called as ``guide(clean, step, sigma)``, returns what to subtract, or None.

    Attributes:
        verifier: a `visviva.physics.Verifier`, whose probe must be differentiable.
        decode: latents (B, C, F, h, w) to frames (B, T, 3, H, W) in [0, 1], differentiable.
        fps: frame rate of each clip [frames/s], shape (B,).
        steps: number of sampler steps in all.
        last: how many of the last ones are guided.
        scale: length of a step in Polyak steps; 1 is a full one.
        inner: gradient steps within one sampler step.
        radius: longest move within one sampler step, as a fraction of |z|.
        segment: frames to the objects' masks (B, T, N, H, W) in them; None where whole frames are judged.
        hold_first: leave the first latent frame (a given first frame) as it is.
        losses: the loss of each clip before every gradient step, shape (B,) each, in the order taken; filled while sampling.

    Example::

        guide = PhysicsGuidance(verifier, backbone.decode, fps, steps=10)
        latents = backbone.sample(condition, noise, steps=10, guide=guide)
    """

    verifier: Judge
    decode: Decode
    fps: Tensor
    steps: int
    last: int = 3
    scale: float = 1.0
    inner: int = 1
    radius: float = 0.05
    segment: Segment | None = None
    hold_first: bool = False
    losses: list[Tensor] = field(default_factory=list)

    def __call__(self, clean: Float[Tensor, "B C F h w"], step: int, sigma: float) -> Float[Tensor, "B C F h w"] | None:
        """Return the correction to subtract from the predicted clean latents at this sampler step, without graph."""
        if step < self.steps - self.last:
            return None
        start = clean.detach().float()
        z = start
        for _ in range(self.inner):
            loss, gradient = self._descend(z, step)
            self.losses.append(loss)
            z = z - self.scale * polyak(loss, gradient)
        return within(start - z, self.radius * norm(start))

    def _descend(self, clean: Tensor, step: int) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = clean.clone().requires_grad_(True)
            frames = self.decode(z)
            masks = None if self.segment is None else self.segment(frames)
            loss = self.verifier(frames, self.fps, masks=masks).loss
            (gradient,) = torch.autograd.grad(loss.sum(), z)
        if not bool(torch.isfinite(gradient).all()):
            raise InputError(
                f"physics guidance has no finite gradient at sampler step {step}; guide fewer of the last steps (guidance.last)"
            )
        if self.hold_first:
            gradient[:, :, 0] = 0
        return loss.detach(), gradient


def norm(latents: Float[Tensor, "B C F h w"]) -> Float[Tensor, "B 1 1 1 1"]:
    """Return the Euclidean norm of each clip's latents."""
    return latents.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)


def polyak(loss: Float[Tensor, "B"], gradient: Float[Tensor, "B C F h w"]) -> Float[Tensor, "B C F h w"]:
    """Return Polyak's step L g / |g|^2 for a loss whose least value is 0; 0 where there is no gradient."""
    squared = norm(gradient).square()
    safe = squared.clamp_min(torch.finfo(squared.dtype).tiny)
    return torch.where(squared > 0, loss.view(-1, 1, 1, 1, 1) * gradient / safe, 0.0)


def within(move: Float[Tensor, "B C F h w"], longest: Float[Tensor, "B 1 1 1 1"]) -> Float[Tensor, "B C F h w"]:
    """Return each clip's move, shortened to the longest allowed length where it is longer."""
    return move * (longest / norm(move).clamp_min(torch.finfo(move.dtype).tiny)).clamp(max=1.0)
