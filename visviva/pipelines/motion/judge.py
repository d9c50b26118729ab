"""The judge of generated motions: decodes to joints, holds them against laws of motion, keeps near the untouched model.

What `visviva.pipelines.posttrain.reward_backprop.RewardBackprop` is for videos, with joints in place of frames and the
untouched model's clean latents (from the same noise) in place of its frames:

    loss = laws(joints) + liveliness(joints, joints0) + keep |z - z0|^2

with joints and normalised features z of the trained network, joints0 and z0 of the untouched one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.configs.posttrain import Reward
from visviva.physics.motion_laws import MotionVerdict, MotionVerifier
from visviva.pipelines.posttrain.batch import Batch
from visviva.pipelines.posttrain.reward_backprop import RewardBackprop
from visviva.pipelines.posttrain.rollout import Rollout, finite
from visviva.pipelines.posttrain.sft import Outcome


@dataclass(frozen=True)
class Ranked:
    """A verdict with what ranking and monitors ask for.

    Attributes:
        loss, residuals: see `MotionVerdict`.
        diagnostics: ``motion_energy``, the mean squared speed of joints [m^2/s^2], (B,).
    """

    loss: Tensor
    residuals: dict[str, Any]
    diagnostics: dict[str, Tensor]

    @property
    def log_reward(self) -> Tensor:
        """Minus the loss, detached: what motions are ranked by; higher is better."""
        return -self.loss.detach()


class MotionJudge(RewardBackprop):
    """The reward objective of motions; ``base`` is everywhere the untouched model's clean latents, (B, 263, T, 1, 1).

    Args:
        rollout: generates and decodes.
        verifier: weighted laws with their anchor.
        reward: settings.
        keep: weight of the squared distance to the untouched model's latents.
        fps: of all motions.
    """

    def __init__(self, rollout: Rollout, verifier: MotionVerifier, reward: Reward, keep: float, fps: float) -> None:
        self.rollout, self.settings, self.sft, self.gate = rollout, reward, None, None
        self.motion_verifier, self.keep, self.fps = verifier, keep, fps

    def judged(self, latents: Float[Tensor, "B 263 T 1 1"], batch: Batch, base: Tensor | None, checked: bool) -> Outcome:
        """Return the loss (B,), with the distance to the untouched model, and the logged numbers."""
        verdict, _ = self.judge(finite(self.rollout.decode(latents)), batch, base)
        loss, logs = verdict.loss, self.logged(verdict, None, batch)
        if base is not None:
            moved = (latents - base).square().flatten(1).mean(1)
            loss, logs = loss + self.keep * moved, logs | {"moved": moved.detach()}
        return loss, logs

    @torch.no_grad()
    def observe(self, frames: Float[Tensor, "B 263 T 1 1"], batch: Batch) -> dict[str, Tensor]:
        """Return the logged numbers of the untouched model's own motions."""
        return self.logged(self.judge(self.rollout.decode(frames), batch, frames)[0], None, batch)

    def judge(self, frames: Float[Tensor, "B T 22 3"], batch: Batch, base: Tensor | None) -> tuple[Any, Any]:
        """Return the verdict on joints; anchors compare with the untouched model's."""
        reference = None if base is None else self.rollout.decode(base).detach()
        told: MotionVerdict = self.motion_verifier(frames, self.fps, reference=reference)
        energy = (frames.detach().diff(dim=1) * self.fps).square().sum(-1).mean((1, 2))
        return Ranked(told.loss, told.residuals, {"motion_energy": energy}), None

    def end(self, batch: Batch) -> int | None:
        """Return None: whole motions are judged."""
        return None

    def doubted(self, measured: Any, frames: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return nothing: joints are what the model makes, no probe lies between."""
        return {}

    def logged(self, verdict: Any, measured: Any, batch: Batch) -> dict[str, Tensor]:
        """Return what is written down of a verdict: raw value per law (NaN where it does not apply), diagnostics."""
        nan = torch.full_like(verdict.loss.detach(), float("nan"))
        logs = {"reward_loss": verdict.loss.detach(), **verdict.diagnostics}
        for name, residual in verdict.residuals.items():
            logs[f"law/{name}"] = torch.where(residual.valid, residual.value.detach(), nan)
        return logs
