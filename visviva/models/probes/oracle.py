"""A probe that knows the truth: it returns the quantities it was given, for calibration and tests."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.measurement import Measurement

MEASURED = ("flow", "confidence", "masks", "features", "contact")


class Oracle:
    """Returns given quantities of a batch whatever the frames show; not differentiable, as it does not look at them.

    Args:
        quantities: `Measurement` fields by name (flow, confidence, masks, features, contact), each for the same B clips.

    Example::

        truth = scene.render()
        probe = Oracle(flow=truth.flow, masks=truth.masks)
    """

    name = "oracle"
    differentiable = False

    def __init__(self, **quantities: Tensor) -> None:
        for quantity in quantities:
            if quantity not in MEASURED:
                raise InputError(f"an oracle cannot know {quantity!r}; give any of {', '.join(MEASURED)}")
        self.quantities = quantities

    @property
    def measures(self) -> frozenset[str]:
        """The quantities that were given."""
        return frozenset(self.quantities)

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B T N H W"] | None = None
    ) -> Measurement:
        """Return the given quantities; given masks win over the ``masks`` passed on."""
        for name, value in self.quantities.items():
            if value.shape[0] != frames.shape[0]:
                raise InputError(f"the oracle knows {name} of {value.shape[0]} clips, but was shown {frames.shape[0]}")
        measured = Measurement(fps=fps, noise=torch.zeros_like(fps)).with_(**self.quantities)
        return measured if measured.masks is not None or masks is None else measured.with_(masks=masks)
