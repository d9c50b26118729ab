"""A law of one's own in fifteen lines: what goes up slows down. Train, guide and measure with it like with any other.

Run it: ``python examples/own_law.py``. It checks itself at the end.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from visviva.models.probes import Combined, LucasKanade, TrackedMasks
from visviva.physics import Measurement, MotionFloor, Residual, Term, Verifier
from visviva.physics.kinematics import difference, object_velocity
from visviva.physics.sprites import random_sprites
from visviva.physics.violations import VIOLATIONS


@dataclass(frozen=True)
class Downwards:
    """Objects gain no speed upwards: mean of ``relu(-(v_y(t+1) - v_y(t)))`` [px/frame^2]; image y points down."""

    name: ClassVar[str] = "downwards"
    needs: ClassVar[frozenset[str]] = frozenset({"flow", "masks"})
    detects: ClassVar[tuple[str, ...]] = ("jitter",)
    trivial: ClassVar[bool] = True  # a frozen clip obeys, so it must be paired with an anchor
    anchor: ClassVar[bool] = False

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the mean upward gain of speed of each clip."""
        velocity, area = object_velocity(measurement.flow, measurement.masks[:, :-1].detach(), measurement.confidence)
        seen = (area[:, 1:] > 4) & (area[:, :-1] > 4)
        gain = torch.relu(-difference(velocity)[..., 1]) * seen
        value = gain.sum((1, 2)) / seen.sum((1, 2)).clamp(min=1)
        return Residual(value, seen.flatten(1).any(1), torch.full_like(value, float("nan")))


def main() -> None:
    """Judge true and shaken clips with the new law, and send its gradient to the pixels."""
    scenes = random_sprites(8, seed=0)
    falling = scenes.with_(
        trajectory=scenes.trajectory[:, :1] + 0.1 * torch.arange(17.0).view(1, 17, 1, 1) ** 2 * torch.tensor([0, 1])
    )
    verifier = Verifier(Combined(LucasKanade(), masks=TrackedMasks()), [Term(Downwards()), Term(MotionFloor(least=0.2))])
    fps = torch.full((8,), 32.0)
    first = falling.render().masks[:, :1]
    losses = {}
    for name, scene in {"true": falling, "shaken": VIOLATIONS["jitter"](falling)}.items():
        frames = scene.render().frames.requires_grad_()
        verdict = verifier(frames, fps, first)
        verdict.loss.sum().backward()
        losses[name] = verdict.residuals["downwards"].value.mean().item()
        print(f"{name:7} downwards {losses[name]:.4f} px/frame^2, gradient {frames.grad.abs().max():.1e}")
    if not losses["shaken"] > 5 * losses["true"]:
        raise SystemExit(f"the law does not tell shaken clips from true ones: {losses}")


if __name__ == "__main__":
    main()
