"""PhysNet: the learned Euler-Lagrange step of FinePhys (arXiv 2505.13437): ``M(q) q'' = J - C``, every term a network's output.

Primary (figures 2 and 3 of the paper): global and local encoders in both directions of time, four heads, symmetric inverse mass
plus a noise matrix, the step ``q'' = Minv (J - C)``, updating from both sides, a pose head. Secondary: equations 8 and 18.
Reconstructed: all sizes, the layers of the encoders (global: mixing over time and channels as siMLPe in PhysMoP), that the
heads see q_t and the frame before it (J depends on the velocity), and that every encoder adds to its input, so that an
untrained module extrapolates what it is given. Nothing here knows masses or a body, or shares a weight with the verifier
(`visviva.models.reestimation.analytic`, `visviva.eval.motion.dynamics`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from visviva.errors import InputError
from visviva.models.reestimation.fusion import Fusion
from visviva.models.reestimation.update import bidirectional

MASSES = ("symmetric+noise", "cholesky")
SIZE = 0.1
"""Scale of the heads' first outputs: accelerations begin near zero [heads' units]."""
PUSH = 10.0
"""Unit of J and C [m/s^2 for a unit inverse mass]."""


class GlobalEncoder(nn.Module):
    """Sees all frames of a window: blocks that mix over time, then over channels; added to its input."""

    def __init__(self, size: int, frames: int, width: int, depth: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(size, width), nn.Linear(width, size)
        self.over_time = nn.ModuleList(nn.Linear(frames, frames) for _ in range(depth))
        self.over_channels = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, poses: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return an encoding of every frame."""
        x = self.inner(poses)
        for k, (time, channels) in enumerate(zip(self.over_time, self.over_channels, strict=True)):
            x = x + time(self.norms[2 * k](x).mT).mT
            x = x + channels(torch.nn.functional.gelu(self.norms[2 * k + 1](x)))
        return poses + self.outer(x)


class LocalEncoder(nn.Module):
    """Sees three consecutive frames; added to the last of them."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3 * size, width), nn.Linear(width, size)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, poses: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return an encoding of every frame from it and the two before; the first is repeated before the beginning."""
        padded = torch.cat([poses[:, :1], poses[:, :1], poses], 1)
        three = torch.cat([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], -1)
        return poses + self.outer(torch.nn.functional.gelu(self.inner(three)))


class Estimator(nn.Module):
    """E_phys: inverse mass, what drives (J) and what resists (C), from the encodings of a frame and of the one before it.

    ``symmetric+noise`` (published): ``Minv = Sym + N``, N with Gaussian entries whose scale is learned per row; it is sampled
    in training and left out otherwise. ``cholesky`` (DeLaN, LaDy): ``M = L L^T + 1e-3``, always positive definite.
    """

    rows: Tensor

    def __init__(self, size: int, width: int, mass: str = MASSES[0]) -> None:
        super().__init__()
        if mass not in MASSES:
            raise InputError(f"mass {mass!r}; {' or '.join(MASSES)}")
        self.size, self.mass = size, mass
        self.trunk = nn.Linear(2 * size, width)
        heads = {"drive": size, "resist": size, "triangle": size * (size + 1) // 2, "noise": size}
        self.heads = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, n)) for name, n in heads.items()}
        )
        for head in self.heads.values():
            last = head[-1]  # type: ignore[index]
            nn.init.normal_(last.weight, std=SIZE / width**0.5)
            nn.init.zeros_(last.bias)
        nn.init.constant_(self.heads["noise"][-1].bias, -6.0)  # type: ignore[index]
        self.register_buffer("rows", torch.tril_indices(size, size), persistent=False)

    def forward(self, q: Float[Tensor, "*batch D"], before: Float[Tensor, "*batch D"]) -> Step:
        """Return the acceleration and the matrices that gave it."""
        seen = torch.nn.functional.gelu(self.trunk(torch.cat([q, 10 * (q - before)], -1)))
        push = PUSH * (self.heads["drive"](seen) - self.heads["resist"](seen))
        lower = self._lower(self.heads["triangle"](seen))
        scale = torch.nn.functional.softplus(self.heads["noise"](seen))
        if self.mass == "cholesky":
            eye = torch.eye(self.size, dtype=q.dtype, device=q.device)
            factor = lower.tril(-1) + torch.diag_embed(torch.nn.functional.softplus(lower.diagonal(dim1=-2, dim2=-1) + 0.54))
            mass = factor @ factor.mT + 1e-3 * eye
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(mass))
            return Step(
                push=push, inverse=inverse, noise=torch.zeros_like(inverse), acceleration=(inverse @ push[..., None])[..., 0]
            )
        symmetric = lower + lower.tril(-1).mT + torch.eye(self.size, dtype=q.dtype, device=q.device)
        noise = scale[..., None] * torch.randn_like(symmetric) if self.training else torch.zeros_like(symmetric)
        inverse = symmetric + noise
        return Step(push=push, inverse=inverse, noise=noise, acceleration=(inverse @ push[..., None])[..., 0])

    def _lower(self, values: Tensor) -> Tensor:
        matrix = values.new_zeros(*values.shape[:-1], self.size, self.size)
        matrix[..., self.rows[0], self.rows[1]] = values
        return matrix


@dataclass(frozen=True)
class Step:
    """An Euler-Lagrange step: ``acceleration = inverse @ push``, ``push = J - C``; ``inverse - noise`` is symmetric."""

    push: Tensor
    inverse: Tensor
    noise: Tensor
    acceleration: Tensor


@dataclass(frozen=True)
class Physics:
    """What PhysNet says of B windows.

    Attributes:
        pose: physically predicted, S_pp (B, T, J, 3); ``fused`` with the data's, the same shape.
        forward, inverse: steps of both directions, frames in the order of the window.
    """

    pose: Tensor
    fused: Tensor
    forward: Step
    inverse: Step

    @property
    def noise(self) -> Float[Tensor, ""]:
        """L_noise: mean over frames of the noise matrices' Frobenius norms."""
        return torch.stack(
            [side.noise.square().sum((-2, -1)).clamp(min=1e-20).sqrt().mean() for side in (self.forward, self.inverse)]
        ).mean()


class PhysNet(nn.Module):
    """The learned re-estimator of windows of ``frames`` poses.

    The root's joint holds its place; the caller takes the window's mean place out. Coordinates are metres, z up.

    Args:
        joints: J. frames: of a window. width, depth: of the encoders. mass: one of `MASSES`. fps: of the windows.

    Example::

        net = PhysNet()
        net(poses).fused  # (B, 32, 17, 3)
    """

    def __init__(
        self, joints: int = 17, frames: int = 32, width: int = 96, depth: int = 4, mass: str = MASSES[0], fps: float = 20.0
    ) -> None:
        super().__init__()
        self.joints, self.frames, self.fps = joints, frames, fps
        size = 3 * joints
        self.whole, self.local = GlobalEncoder(size, frames, width, depth), LocalEncoder(size, width)
        self.mix = nn.Linear(2 * size, size)
        self.estimator = Estimator(size, width, mass)
        last = nn.Linear(width, size)
        self.pose = nn.Sequential(nn.Linear(size, width), nn.GELU(), last)
        self.fusion = Fusion(size, width)
        with torch.no_grad():
            self.mix.weight.copy_(torch.cat([torch.eye(size), torch.eye(size)], 1) / 2)
        nn.init.zeros_(self.mix.bias)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def encode(self, poses: Float[Tensor, "B T D"]) -> tuple[Float[Tensor, "B T D"], Step]:
        """Return encodings and accelerations in one direction of time: each frame knows the two before it and the window."""
        q = self.mix(torch.cat([self.whole(poses), self.local(poses)], -1))
        before = torch.cat([q[:, :1], q[:, :-1]], 1)
        return q, self.estimator(q, before)

    def forward(self, poses: Float[Tensor, "B T J 3"]) -> Physics:
        """Return the re-estimated windows.

        Raises:
            InputError: windows of another length or number of joints.
        """
        if poses.shape[1:] != (self.frames, self.joints, 3):
            raise InputError(f"windows of the shape {tuple(poses.shape[1:])}; ({self.frames}, {self.joints}, 3) is wanted")
        data = poses.flatten(2)
        q, ahead = self.encode(data)
        back_q, back = self.encode(data.flip(1))
        back_q = back_q.flip(1)
        back = Step(*(getattr(back, name).flip(1) for name in ("push", "inverse", "noise", "acceleration")))
        updated = bidirectional(q, ahead.acceleration, back_q, back.acceleration, 1 / self.fps)
        physical = updated + self.pose(updated)
        shape = poses.shape[1:]
        return Physics(physical.unflatten(-1, shape[1:]), self.fusion(data, physical).unflatten(-1, shape[1:]), ahead, back)
