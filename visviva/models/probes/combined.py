"""A probe made of parts: flow, a source of masks, features and surprise, as far as each is wanted."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.measurement import Measurement, Probe

MaskSource = Callable[[Tensor, Tensor | None], Tensor]


class Combined:
    """Measures what its parts measure, in one call.

    Args:
        flow: a probe that measures flow, such as `LucasKanade`.
        masks: what to do about masks: None passes given ones on; `TrackedMasks` follows the first of the given masks
            through the frames (for generated clips); `Moving` and `MotionMasks` find moving objects. A probe of objects, such
            as `Objects`, measures tracks too.
        features: a probe that measures features, such as `VAEFeatures`.
        surprise: a probe that measures surprise, such as `VJEPA2Surprise`.

    ``differentiable`` is True where all of its parts are.

    Example::

        probe = Combined(LucasKanade(), masks=TrackedMasks(), features=VAEFeatures(backbone.vae))
        measured = probe(generated, fps, masks=true_masks)
    """

    def __init__(
        self,
        flow: Probe | None = None,
        masks: MaskSource | Probe | None = None,
        features: Probe | None = None,
        surprise: Probe | None = None,
    ) -> None:
        if flow is None and features is None and surprise is None and not isinstance(masks, Probe):
            raise InputError(
                "a combined probe without flow, features, surprise and a probe of objects measures nothing; give one of them"
            )
        self.flow, self.masks, self.features, self.surprise = flow, masks, features, surprise

    @property
    def parts(self) -> list[Probe]:
        """The probes it is made of."""
        return [part for part in (self.flow, self.masks, self.features, self.surprise) if isinstance(part, Probe)]

    @property
    def name(self) -> str:
        """Names of the parts."""
        return "+".join(part.name for part in self.parts)

    @property
    def differentiable(self) -> bool:
        """Whether gradients of all measured quantities reach the frames."""
        return all(part.differentiable for part in self.parts)

    @property
    def measures(self) -> frozenset[str]:
        """All that the parts measure."""
        own = frozenset({"masks"}) if self.masks is not None else frozenset()
        return own.union(*(part.measures for part in self.parts))

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B t N H W"] | None = None
    ) -> Measurement:
        """Measure; with a mask source, ``masks`` (B, t >= 1, N, H, W) are what it starts from."""
        tracks = None
        if isinstance(self.masks, Probe):
            objects = self.masks(frames, fps, masks)
            masks, tracks = objects.masks, objects.tracks
        elif self.masks is not None:
            masks = self.masks(frames, masks)
        measured = self.flow(frames, fps, masks) if self.flow is not None else Measurement(fps=fps, masks=masks)
        if tracks is not None:
            measured = measured.with_(tracks=tracks)
        if self.features is not None:
            measured = measured.with_(features=self.features(frames, fps).features)
        if self.surprise is not None:
            measured = measured.with_(surprise=self.surprise(frames, fps).surprise)
        return measured
