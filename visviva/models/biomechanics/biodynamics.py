"""The trained pair: muscles' encoder and modified Euler-Lagrange network, saved and loaded together."""

from __future__ import annotations

import json
from pathlib import Path

from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from visviva.errors import InputError
from visviva.models.biomechanics.emg import EMGEncoder
from visviva.models.biomechanics.euler_lagrange import EulerLagrange
from visviva.models.network_file import located, opened

FPS = 30.0
"""Frames per second that the shipped networks know."""
BEFORE, AFTER = 150, 50
"""Samples of EMG that are read before and after a frame, at 1 kHz."""


class Biodynamics:
    """What accelerations pose, velocity and (where there are any) muscles cause.

    The shipped weights know simulated actions and EMG made from torques (`visviva/models/weights/biomechanics/README.md`).

    Example::

        a = Biodynamics.load()(position, velocity)  # (B, 22, 3) m/s^2, without EMG
    """

    def __init__(self, encoder: EMGEncoder, net: EulerLagrange) -> None:
        self.encoder, self.net = encoder.eval(), net.eval()

    def __call__(
        self, position: Float[Tensor, "B J 3"], velocity: Float[Tensor, "B J 3"], signal: Float[Tensor, "B C S"] | None = None
    ) -> Float[Tensor, "B J 3"]:
        """Return accelerations [m/s^2]; differentiable.

        Args:
            position: of HumanML3D's joints, z up [m].
            velocity: from the last frame to this one [m/s].
            signal: EMG around the frame, `BEFORE` and `AFTER` samples at 1 kHz; None: muscles are masked.
        """
        return self.net(position, velocity, None if signal is None else self.encoder(signal))

    def save(self, path: str | Path) -> None:
        """Write weights (half precision) and sizes to one safetensors file."""
        about = {"channels": self.encoder.channels, "out": self.encoder.out, "width": self.encoder.enter.out_channels}
        about |= {"blocks": len(self.encoder.blocks), "joints": self.net.joints, "rank": self.net.rank}
        about |= {"hidden": self.net.hidden}
        nets = {"encoder": self.encoder, "net": self.net}
        state = {f"{part}.{name}": x.half().contiguous() for part, net in nets.items() for name, x in net.state_dict().items()}
        save_file(state, str(path), metadata={"biomechanics": json.dumps(about)})

    @classmethod
    def load(cls, source: str | Path = "biomechanics") -> Biodynamics:
        """Load the shipped networks (``"biomechanics"``) or those of a safetensors file.

        Raises:
            InputError: no such file, or none that `visviva pretrain` wrote.
        """
        path = located(source, "biomechanics")
        state, about = opened(path, "biomechanics", "network")
        try:
            encoder = EMGEncoder(about["channels"], about["out"], about["width"], about["blocks"])
            net = EulerLagrange(about["joints"], about["out"], about["hidden"], about["rank"])
            for part, own in (("encoder.", encoder), ("net.", net)):
                own.load_state_dict({n.removeprefix(part): x for n, x in state.items() if n.startswith(part)})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{path}: holds no network that visviva pretrain wrote ({error})") from error
        return cls(encoder, net)
