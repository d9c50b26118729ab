"""Consistency of accelerations while sampling: the clean motion is moved to accelerate as forces allow (reconstructed).

BioMoDiffuse (arXiv 2503.06151) holds the motion against a modified Euler-Lagrange equation at each denoising step; only its
abstracts and a digest could be read (card: motion, section 2), so everything beyond that sentence is ours:

    x0 <- x0 + alpha_bar_t R(x0, a_phys - a_kin)

a_kin are the clean motion's accelerations by fits. a_phys are those nearest to them that gravity and a ground under standing
feet can cause on a body of known masses (`EulerLagrange.allowed`). With EMG the muscles' network (`Biodynamics`) says how the
limbs accelerate in the place of a_kin. R is the least squares of `visviva.physics.motion_laws.following` and not learned: no
weights of it exist. Early estimates, which are mean poses, hardly move, as alpha_bar_t is small there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.data.motions.axes import upright
from visviva.data.motions.emg import RATE
from visviva.data.motions.humanml3d import joints_of
from visviva.errors import InputError
from visviva.models.biomechanics.biodynamics import AFTER, BEFORE, FPS, Biodynamics
from visviva.physics.motion_laws import EulerLagrange
from visviva.physics.motion_laws.body import fitted, window_of
from visviva.physics.motion_laws.following import followed
from visviva.pipelines.motion.steering import features_of


@dataclass(frozen=True)
class Told:
    """What EMG says: embeddings around each frame (B, T, E), and which windows of the fits have it throughout (F,)."""

    embedding: Float[Tensor, "B T E"]
    whole: Bool[Tensor, " F"]

    def of(self, mine: Bool[Tensor, " B"], frames: int, fps: float) -> Told:
        """Return the part of some motions, of so many frames."""
        return Told(self.embedding[mine, :frames], self.whole[: frames - window_of(fps) + 1])


@dataclass
class AccelerationConsistency:
    """Moves the normalised clean features so that their joints accelerate as forces allow; without graph of the move.

    Attributes:
        network: whose statistics the features have.
        weight: of accelerations against places (`followed`); 0 changes nothing, 1 mends what is faster than 1.6 Hz.
        law: the ground.
        muscles: what reads EMG; None: the shipped networks, when there is EMG.

    Example::

        model(["a person walks"], consistency=AccelerationConsistency(model.transformer), emg=signal)
    """

    network: Any
    weight: float = 1.0
    law: EulerLagrange = field(default_factory=EulerLagrange)
    muscles: Biodynamics | None = None

    @torch.no_grad()
    def __call__(
        self, clean: Float[Tensor, "B T 263"], lengths: Tensor, fps: Tensor, share: float = 1.0, told: Told | None = None
    ) -> Float[Tensor, "B T 263"]:
        """Return the moved features; ``share`` of the move is made (alpha_bar_t)."""
        moves = torch.zeros_like(clean)
        for frames in lengths.unique().tolist():  # the features' smoothed heading looks beyond an end
            mine = lengths == frames
            said = None if told is None else told.of(mine, frames, float(fps[0]))
            moves[mine, :frames] = self._move(clean[mine, :frames], float(fps[0]), share, said)
        return clean + moves

    def _move(self, clean: Tensor, fps: float, share: float, told: Told | None) -> Tensor:
        """What is added to the features of motions of one length."""
        joints = joints_of(self.network.denormalised(clean), fps) @ upright("y").T.to(clean)
        lengths = torch.full((len(joints),), joints.shape[1], device=joints.device)
        own = fitted(joints, fps, window_of(fps))[2]
        wanted = own if told is None else self.driven(joints, own, fps, told)
        change = self.law.allowed(joints, wanted, fps, lengths) - own
        move = share * followed(change, joints.shape[1], fps, lengths, self.weight)
        before, after = (self.network.normalised(features_of(x, fps)) for x in (joints, joints + move))
        return after - before

    def told(self, emg: Float[Tensor, "B C S"], frames: int, fps: float) -> Told:
        """Return what EMG says at each of so many frames.

        Raises:
            InputError: signals that end before the motion, or of other channels; motions too short for their windows.
        """
        needed = round((frames - 1) * RATE / fps) + 1
        channels = self._muscles.encoder.channels
        if emg.ndim != 3 or emg.shape[1] != channels or emg.shape[2] < needed:
            raise InputError(
                f"EMG of the shape {tuple(emg.shape)}; (B, {channels}, S) is wanted, S of {needed} samples "
                f"or more for {frames} frames at {fps:g} frames/s, {RATE:g} samples per second"
            )
        centre = (torch.arange(frames, device=emg.device) * RATE / fps).round().long()
        there = (centre >= BEFORE) & (centre + AFTER <= emg.shape[2])
        inner = window_of(fps) - 2
        whole = there[1:-1].unfold(0, inner, 1).all(-1) if frames >= inner + 2 else there[:0]
        if not bool(whole.any()):
            raise InputError(
                f"{frames} frames at {fps:g} frames/s: EMG is read from {BEFORE} samples before a frame to {AFTER} after it, "
                f"in {inner} frames together; make the motion longer"
            )
        samples = centre[there][:, None] + torch.arange(-BEFORE, AFTER, device=emg.device)
        windows = emg[:, :, samples].permute(0, 2, 1, 3)
        found = self._muscles.encoder.to(emg.device)(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
        embedding = found.new_zeros(len(emg), frames, found.shape[-1])
        embedding[:, there] = found
        return Told(embedding, whole)

    def driven(
        self, joints: Float[Tensor, "B T 22 3"], own: Float[Tensor, "B F 22 3"], fps: float, told: Told
    ) -> Float[Tensor, "B F 22 3"]:
        """Return the muscles' accelerations where EMG is there, else the motion's own.

        The network's velocities are those of half a step of its 30 frames/s before; at other rates they are found from the
        steps before, for the step ahead would tell the acceleration. Its accelerations are averaged as the fits average.
        """
        window = window_of(fps)
        step = fps * joints.diff(dim=1)[:, :-1]
        past = torch.cat((step[:, :1], step[:, :-1]), 1)
        velocity = step + (step - past) * (1 - fps / FPS) / 2
        given = (x.flatten(0, 1) for x in (joints[:, 1:-1], velocity, told.embedding[:, 1:-1]))
        found = self._muscles.net.to(joints.device)(*given).unflatten(0, velocity.shape[:2])
        row = fitted(torch.eye(window).to(joints)[None], fps, window)[2][0, 0]
        kernel = row.cumsum(0).cumsum(0)[: window - 2] / fps**2
        smooth = found.unfold(1, window - 2, 1) @ kernel
        return torch.where(told.whole[:, None, None], smooth, own)

    @cached_property
    def _muscles(self) -> Biodynamics:
        return Biodynamics.load() if self.muscles is None else self.muscles
