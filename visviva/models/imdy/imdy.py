"""The trained inverse dynamics: clips of markers in, torques and ground forces out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from visviva.errors import InputError
from visviva.models.imdy.cycle import ForwardDynamics
from visviva.models.imdy.network import InverseDynamics
from visviva.models.imdy.windows import PAST, windows
from visviva.models.network_file import located, opened

FPS = 30.0
"""Frames per second that the shipped network knows."""
TOGETHER = 4096
"""Windows that are worked on at once."""


@dataclass(frozen=True)
class Forces:
    """Of B clips, M = T - 5 frames each.

    Attributes:
        torque: in the frames of the joints' links, (B, M, J, 3) [N m per kg of the body].
        force: of the ground, in the world, (B, M, G, 3) [body weights]; 0 where no contact is seen.
        contact: probability of contact, (B, M, G).
        frames: of the clip that these are.
    """

    torque: Tensor
    force: Tensor
    contact: Tensor
    frames: range


class ImDy:
    """A trained `InverseDynamics`, with the `ForwardDynamics` that it was trained beside.

    Forces are per kilogram and in body weights: markers do not show a mass. The shipped weights know simulated actions only
    (`visviva/models/weights/imdy/README.md`). Not for motions above 30 frames per second: resample them first.

    Example::

        found = ImDy.load()(joints, fps=30.0)
        found.force[..., 2].sum(-1)  # vertical ground reaction in body weights, (B, M)
    """

    def __init__(self, inverse: InverseDynamics, forward: ForwardDynamics | None = None) -> None:
        self.inverse, self.forward = inverse.eval(), None if forward is None else forward.eval()

    def __call__(self, markers: Float[Tensor, "B T K 3"], fps: float) -> Forces:
        """Return torques and ground forces of clips; differentiable with respect to the markers.

        Args:
            markers: joints or markers in any order and number, z up, the floor at height 0 [m].
            fps: frames per second; within 2 % of `FPS`.

        Raises:
            InputError: another frame rate or shape, fewer than 6 frames, markers that are not finite, millimetres.
        """
        if not abs(fps / FPS - 1) <= 0.02:
            raise InputError(
                f"{fps:g} frames per second; this network knows {FPS:g}: use visviva.data.motions.resample.resampled"
            )
        seen = windows(markers)
        tall = float((markers[..., 2].amax((1, 2)) - markers[..., 2].amin((1, 2))).max())
        if tall > 10:
            raise InputError(f"markers up to {tall:.3g} apart in height; metres are wanted, are these millimetres?")
        flat = seen.flatten(0, 1).to(self.inverse.unit)
        parts = [self.inverse(flat[k : k + TOGETHER]) for k in range(0, len(flat), TOGETHER)]
        torque = torch.cat([part.torque for part in parts]) * self.inverse.unit[:, None]
        contact = torch.cat([part.contact[:, 0] for part in parts]).sigmoid()
        force = torch.cat([part.force[:, 0] for part in parts]) * (contact > 0.5)[..., None]
        shape = seen.shape[:2]
        torque, force, contact = (x.unflatten(0, shape) for x in (torque, force, contact))
        return Forces(torque, force, contact, range(PAST, PAST + shape[1]))

    def save(self, path: str | Path) -> None:
        """Write weights (half precision) and sizes to one safetensors file."""
        about = {"joints": self.inverse.joints, "touching": self.inverse.touching, "width": self.inverse.embed.out_features}
        nets = {"inverse": self.inverse} | ({} if self.forward is None else {"forward": self.forward})
        state = {f"{part}.{name}": x.half().contiguous() for part, net in nets.items() for name, x in net.state_dict().items()}
        save_file(state, str(path), metadata={"imdy": json.dumps(about)})

    @classmethod
    def load(cls, source: str | Path = "imdy") -> ImDy:
        """Load the shipped networks (``"imdy"``) or those of a safetensors file.

        Raises:
            InputError: no such file, or none that `visviva pretrain` wrote.
        """
        path = located(source, "imdy")
        state, about = opened(path, "imdy", "network")
        try:
            sizes = {name: int(about[name]) for name in ("joints", "touching", "width")}
            inverse = InverseDynamics(**sizes)
            inverse.load_state_dict(_part(state, "inverse."))
            forward = ForwardDynamics(**sizes) if _part(state, "forward.") else None
            if forward is not None:
                forward.load_state_dict(_part(state, "forward."))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{path}: holds no network that visviva pretrain wrote ({error})") from error
        return cls(inverse, forward)


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
