"""Surprise: a clip that obeys the world's regularities is predicted by who has learnt them.

The prediction is a probe's (`visviva.models.probes.VJEPA2Surprise`: a frozen V-JEPA 2 predicts the latents of later frames from
those of earlier ones, as in WMReward, arXiv 2601.10553, and the IntPhys experiments of arXiv 2502.11831); this law is only a
norm of what it measures. It is as good as the predictor: one with random weights proves nothing, and one that extrapolates
motion (`Extrapolation`, on which the law is calibrated) knows nothing but that things go on as they went.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from visviva.errors import InputError
from visviva.physics.laws.law import Residual, finite, require, unknown
from visviva.physics.measurement import Measurement


@dataclass(frozen=True)
class Surprise:
    """Power mean over the stretches of a clip, ``(mean_k s_k^p)^(1/p)``, in the probe's own unit; lower is better.

    A frozen clip is predicted perfectly and so is an empty one: pair it with an anchor.

    Attributes:
        power: p; 1 is WMReward's mean, larger values weigh the worst moment more, infinity takes it alone. The default, 4, is
            ours: most violations last a moment, which a mean over the clip dilutes.

    Raises:
        InputError: no surprise measured; a power below 1.

    Example::

        Surprise(power=1.0)(Measurement(fps=torch.tensor([30.0]), surprise=torch.tensor([[0.3, 0.5]]))).value  # tensor([0.4])
    """

    power: float = 4.0

    name: ClassVar[str] = "surprise"
    needs: ClassVar[frozenset[str]] = frozenset({"surprise"})
    scenes: ClassVar[tuple[str, ...]] = ("moves", "falls")
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse what is no norm."""
        if not self.power >= 1:
            raise InputError(f"power {self.power} gives no norm; use 1 or more, float('inf') for the worst moment")

    @property
    def detects(self) -> tuple[str, ...]:
        """Violations that it must separate from true clips, with `Extrapolation`; a mean dilutes those of a moment."""
        lasting = ("swapped_identity", "jitter", "noise")
        return lasting if self.power < 2 else ("teleport", "vanish", *lasting)

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the residual of each clip; differentiable with respect to the surprise."""
        require(measurement, self.name, self.needs)
        given = measurement.surprise
        if given is None or given.shape[1] == 0:
            raise InputError(f"the law {self.name!r} was given no stretch to be surprised by; use longer clips")
        surprise, clean = finite(given)
        surprise = surprise.clamp(min=0)
        top = surprise.detach().amax(1, keepdim=True).clamp(min=1e-12)
        if self.power == float("inf"):
            value = surprise.amax(1)
        else:
            share = (surprise / top).clamp(min=1e-6) if self.power > 1 else surprise / top
            value = top[:, 0] * share.pow(self.power).mean(1).pow(1 / self.power)
            value = torch.where(surprise.detach().amax(1) > 0, value, 0.0)
        return Residual(torch.where(clean, value, 0.0), clean, unknown(value))
