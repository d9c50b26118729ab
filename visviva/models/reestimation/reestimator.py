"""The trained re-estimator: 2D poses to 3D by the lifter, 3D poses to ones that PhysNet's dynamics allow; save, load."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from visviva.errors import InputError
from visviva.models.network_file import located, opened
from visviva.models.reestimation.dynamics import PhysNet
from visviva.models.reestimation.kalman import smoothed
from visviva.models.reestimation.lifting import Lifter, normalised
from visviva.models.reestimation.windows import cut, joined

NOISE, JERK = 0.02, 1000.0
"""Of the smoother of lifted poses: standard deviation of a coordinate [m], spectral density of the jerk [m^2/s^5]."""
GATE = 10.0
"""And from how many standard deviations on a joint counts less."""


@dataclass(frozen=True)
class Pool:
    """Prompt pairs: `normalised` 2D windows and their 3D poses about the hip, (N, F, J, 3) each."""

    images: Tensor
    poses: Tensor


class Reestimator:
    """Lifter and PhysNet with their prompt pool, for clips of any length at ``fps`` frames per second.

    Example::

        found = Reestimator.load()
        lifted = found.lift(camera.levelled(image), confidence)  # (T, 17, 3) about the hip
        found(placed(lifted, plane))  # re-estimated
    """

    def __init__(self, lifter: Lifter, physics: PhysNet, pool: Pool) -> None:
        self.lifter, self.physics, self.pool = lifter.eval(), physics.eval(), pool

    @property
    def fps(self) -> float:
        """Frames per second of the motions that it knows."""
        return self.physics.fps

    @torch.no_grad()
    def lift(self, plane: Float[Tensor, "T J 2"], confidence: Float[Tensor, "T J"], prompt: int = 0) -> Float[Tensor, "T J 3"]:
        """Return 3D poses about the hip [m], x right, y ahead of the camera, z up.

        Args:
            plane: joints as a level camera sees them (`visviva.models.reestimation.camera`).
            confidence: of the detector, 0 to 1. prompt: which pair of the pool shows the task.

        Raises:
            InputError: fewer frames than a window has, or no such prompt.
        """
        if not 0 <= prompt < len(self.pool.images):
            raise InputError(f"prompt {prompt}; the pool has {len(self.pool.images)}")
        query = torch.stack(
            [
                normalised(*pair)
                for pair in zip(
                    cut(plane.float(), self.lifter.frames), cut(confidence.float(), self.lifter.frames), strict=True
                )
            ]
        )
        pairs = (x[prompt].to(query).expand_as(query) for x in (self.pool.images, self.pool.poses))
        return joined(self.lifter.to(query.device)(query, *pairs), len(plane)).to(plane.dtype)

    @torch.no_grad()
    def __call__(self, joints: Float[Tensor, "T J 3"]) -> Float[Tensor, "T J 3"]:
        """Return re-estimated joints [m], z up, at this module's frame rate.

        Raises:
            InputError: fewer frames than a window has.
        """
        windows = cut(joints.float(), self.physics.frames)
        middle = windows[:, :, :1].mean(1, keepdim=True)
        found = self.physics.to(windows.device)(windows - middle).fused + middle
        return joined(found, len(joints)).to(joints.dtype)

    def calmed(self, joints: Float[Tensor, "T J 3"]) -> Float[Tensor, "T J 3"]:
        """Return lifted poses smoothed, with the noise and jerk that suit training clips; what is far off counts less."""
        return smoothed(joints, self.fps, NOISE, JERK, gate=GATE)

    def save(self, path: str | Path) -> None:
        """Write weights, pool and settings to one safetensors file, in half precision."""
        lifter, physics = self.lifter, self.physics
        about: dict[str, dict[str, Any]] = {
            "lifter": {"frames": lifter.frames, "width": lifter.embed.out_features, "depth": len(lifter.depths)},
            "physics": {"frames": physics.frames, "width": physics.whole.inner.out_features, "fps": physics.fps},
        }
        about["lifter"] |= {"heads": lifter.heads, "apart": lifter.apart, "guess": lifter.guesser[0].out_features}
        about["physics"] |= {"depth": len(physics.whole.over_time), "mass": physics.estimator.mass}
        state = {f"lifter.{k}": v for k, v in self.lifter.state_dict().items()}
        state |= {f"physics.{k}": v for k, v in self.physics.state_dict().items()}
        state |= {"pool.images": self.pool.images, "pool.poses": self.pool.poses}
        save_file({k: v.half().contiguous() for k, v in state.items()}, str(path), metadata={"reestimator": json.dumps(about)})

    @classmethod
    def load(cls, source: str | Path = "reestimation") -> Reestimator:
        """Load the shipped re-estimator (``"reestimation"``) or one from a safetensors file.

        Raises:
            InputError: no such file, or not a re-estimator.
        """
        path = located(source, "reestimation")
        state, about = opened(path, "reestimator", "re-estimator")
        try:
            lifter, physics = Lifter(**about["lifter"]), PhysNet(**about["physics"])
            for name, network in (("lifter.", lifter), ("physics.", physics)):
                network.load_state_dict({k.removeprefix(name): v for k, v in state.items() if k.startswith(name)})
            return cls(lifter, physics, Pool(state["pool.images"], state["pool.poses"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{path}: its settings or weights do not fit a re-estimator ({error}); train it again") from error
