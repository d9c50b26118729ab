"""Mass conservation: what a clip contains must be what its reference contains, measured in features of a frozen encoder.

The second reward of NewtonRewards (arXiv 2512.00425) compares features of the generated clip with those of the paired
true clip, so that objects do not vanish, melt or stand still to please the kinematic term. The paper's distance and layer
are not public; mean squared error of layer-normalised tokens is our reconstruction, cosine the alternative. The paper's
encoder is V-JEPA 2; the default probe here is the frozen video VAE (`visviva.models.probes.VAEFeatures`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.laws.law import Residual, finite, require, unknown
from visviva.physics.measurement import Measurement


@dataclass(frozen=True)
class MassConservation:
    """Distance of the clip's feature tokens from its reference's, dimensionless; 0 for the reference itself.

    ``mse``: mean over tokens and channels of ``(LN(f) - LN(f_ref))^2`` with LN the layer normalisation of one token (zero
    mean, unit variance over channels, no affine), in [0, 4]. ``cosine``: mean over tokens of ``1 - cos(f, f_ref)``, [0, 2].

    Raises:
        InputError: no features, no reference, or tokens of another shape; text-to-video has no paired truth, so it takes
            the kinematic laws with a motion floor instead.

    Example::

        MassConservation()(measurement.with_(reference=measurement)).value  # zeros
    """

    distance: str = "mse"

    name: ClassVar[str] = "mass_conservation"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "reference"})
    detects: ClassVar[tuple[str, ...]] = ("vanish", "shrink", "fade", "empty", "noise", "freeze", "teleport")
    trivial: ClassVar[bool] = False
    anchor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse an unknown distance."""
        if self.distance not in ("mse", "cosine"):
            raise InputError(f"distance {self.distance!r} is not known to mass conservation; use 'mse' or 'cosine'")

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the distance of each clip; differentiable with respect to its features, the reference is detached."""
        require(measurement, self.name, self.needs)
        reference = measurement.reference
        if measurement.features is None or reference is None or reference.features is None:
            raise InputError(f"the law {self.name!r} needs features of the reference; measure it with the same probe")
        if measurement.features.shape != reference.features.shape:
            raise InputError(
                f"features of shape {tuple(measurement.features.shape)} do not fit the reference's "
                f"{tuple(reference.features.shape)}; measure clips of one size and length with one probe"
            )
        features, clean = finite(measurement.features)
        wanted, clean_reference = finite(reference.features.detach())
        value = self._distance(features, wanted)
        valid = clean & clean_reference
        return Residual(torch.where(valid, value, 0.0), valid, unknown(value))

    def _distance(self, features: Tensor, wanted: Tensor) -> Tensor:
        if self.distance == "cosine":
            return (1 - torch.nn.functional.cosine_similarity(features, wanted, dim=-1)).clamp(min=0).mean(1)
        normed = (torch.nn.functional.layer_norm(x, x.shape[-1:]) for x in (features, wanted))
        return (next(normed) - next(normed)).square().mean((1, 2))
