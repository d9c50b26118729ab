"""What a probe measures of a batch of clips, and what a probe is.

Symbols used in all shapes: B clips, T frames, N objects, H and W pixels, S feature tokens, D feature channels.
Units: pixels, frames; ``fps`` [1/s] carries the clip's time base with it. Image y points down.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.tracks import Tracks, tracks_of_masks


@dataclass(frozen=True)
class Measurement:
    """Measured quantities of a batch of clips; whatever the probe does not measure is None.

    Attributes:
        fps: frames per second of each clip, shape (B,), float32 [1/s].
        flow: optical flow from frame t to t+1, shape (B, T-1, 2, H, W), (dx, dy) [px/frame].
        confidence: trust in the flow, shape (B, T-1, 1, H, W) in [0, 1]; detached (a generator must not earn by lowering it).
        masks: soft object masks, shape (B, T, N, H, W) in [0, 1].
        features: appearance tokens, shape (B, S, D).
        contact: True where a contact (impact, landing, reversal) makes constant acceleration not apply, shape (B, T), bool.
        tracks: where each object is, see `visviva.physics.tracks`; where masks were measured, `tracked` derives them.
        scale: metres per pixel in the plane of the motion, shape (B,) [m/px]; NaN for clips where it is not known.
        surprise: how badly what was seen before predicts each of K stretches of the clip, shape (B, K), >= 0; its unit is the
            probe's own.
        force: commanded force over mass on each object, in any unit, shape (B, N, 2), y down; given with a prompt.
        noise: standard error of the measured flow [px/frame], shape (B,); residuals below it mean nothing.
        reference: the same quantities of a paired clip (ground truth, or the frozen base's clip from the same noise).

    Raises:
        InputError: two quantities disagree about the number of clips, frames or pixels.

    Example::

        Measurement(fps=torch.tensor([30.0]), flow=torch.zeros(1, 16, 2, 64, 64)).frames  # 17
    """

    fps: Tensor
    flow: Tensor | None = None
    confidence: Tensor | None = None
    masks: Tensor | None = None
    features: Tensor | None = None
    contact: Tensor | None = None
    tracks: Tracks | None = None
    scale: Tensor | None = None
    surprise: Tensor | None = None
    noise: Tensor | None = None
    force: Tensor | None = None
    reference: Measurement | None = None

    def __post_init__(self) -> None:
        """Refuse quantities that cannot belong to one batch of clips."""
        clips, frames, pixels = self.fps.shape[0] if self.fps.ndim == 1 else None, self.frames, self.pixels
        wanted: dict[str, tuple[int | None, ...]] = {
            "fps": (clips,),
            "flow": (clips, None if frames is None else frames - 1, 2, *pixels),
            "confidence": (clips, None if frames is None else frames - 1, 1, *pixels),
            "masks": (clips, frames, None, *pixels),
            "features": (clips, None, None),
            "contact": (clips, frames),
            "scale": (clips,),
            "surprise": (clips, None),
            "noise": (clips,),
            "force": (clips, None, 2),
        }
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value is None:
                continue
            given = tuple(value.shape)
            if len(given) != len(shape) or any(w is not None and g != w for g, w in zip(given, shape, strict=True)):
                expected = "(" + ", ".join("any" if w is None else str(w) for w in shape) + ")"
                raise InputError(f"the measured {name} has shape {given}, which does not fit this batch; give shape {expected}")
        if self.tracks is not None and tuple(self.tracks.positions.shape[:2]) != (clips, frames):
            given = tuple(self.tracks.positions.shape)
            raise InputError(
                f"the measured tracks have shape {given}, which does not fit this batch; give ({clips}, {frames}, any, 2)"
            )

    @property
    def frames(self) -> int | None:
        """Number of frames T, where a quantity with a time axis was measured."""
        if self.flow is not None and self.flow.ndim == 5:
            return self.flow.shape[1] + 1
        timed = self.masks if self.masks is not None else self.contact
        if timed is None and self.tracks is not None:
            return self.tracks.frames
        return timed.shape[1] if timed is not None and timed.ndim > 1 else None

    @property
    def pixels(self) -> tuple[int | None, int | None]:
        """Image size (H, W), where a quantity with pixels was measured."""
        image = self.flow if self.flow is not None else self.masks
        return (image.shape[-2], image.shape[-1]) if image is not None and image.ndim == 5 else (None, None)

    def tracked(self) -> Tracks:
        """Return the measured tracks, or those of the masks (with the spin that the flow shows).

        Raises:
            InputError: neither tracks nor masks were measured.
        """
        if self.tracks is not None:
            return self.tracks
        if self.masks is None:
            raise InputError("neither tracks nor masks of objects were measured; use a probe that follows objects")
        return tracks_of_masks(self.masks, self.flow)

    def with_(self, **changes: Any) -> Measurement:
        """Return a copy with some quantities replaced."""
        return replace(self, **changes)

    def detach(self) -> Measurement:
        """Return a copy without gradient, such as a reference must be."""
        return self._each(lambda value: value.detach())

    def to(self, device: torch.device | str) -> Measurement:
        """Return a copy on another device."""
        return self._each(lambda value: value.to(device))

    def __getitem__(self, clips: slice) -> Measurement:
        """Return the measurement of a slice of the batch, such as ``measurement[2:3]``."""
        return self._each(lambda value: value[clips])

    def _each(self, change: Any) -> Measurement:
        changes: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                nested = isinstance(value, Measurement | Tracks)
                changes[field.name] = value._each(change) if nested else change(value)
        return replace(self, **changes)


@runtime_checkable
class Probe(Protocol):
    """Measures frames. Frozen: it has no trainable parameters.

    ``differentiable`` says whether gradients of the measurement reach the frames; a law's ``loss`` refuses a probe that is not.
    ``measures`` names the `Measurement` fields it fills.
    """

    @property
    def name(self) -> str:
        """Name under which it is reported."""
        ...

    @property
    def differentiable(self) -> bool:
        """Whether gradients of what it measures reach the frames."""
        ...

    @property
    def measures(self) -> frozenset[str]:
        """The `Measurement` fields that it fills."""
        ...

    def __call__(self, frames: Tensor, fps: Tensor, masks: Tensor | None = None) -> Measurement:
        """Measure frames (B, T, 3, H, W) in [0, 1], float32. ``masks`` (B, T, N, H, W), where known, are passed on."""
        ...


def check_frames(frames: Tensor, fps: Tensor, least: int = 2, values: bool = True, as_decoded: bool = False) -> None:
    """Raise an `InputError` unless frames (B, T, 3, H, W) and fps (B,) can be measured: finite floats in [0, 1], T >= least.

    Looking at the values waits for the device, once per call; ``values=False`` looks at shapes and types alone. With
    ``as_decoded`` uint8 frames will do, too.
    """
    shape = tuple(frames.shape)
    if len(shape) != 5 or shape[2] != 3:
        raise InputError(f"frames have shape {shape}; give (B, T, 3, H, W)")
    decoded = as_decoded and frames.dtype == torch.uint8
    if not frames.is_floating_point() and not decoded:
        raise InputError(f"frames have dtype {frames.dtype}; give floats in [0, 1], for example frames.float() / 255")
    if shape[1] < least:
        raise InputError(f"the clip has {shape[1]} frame(s); at least {least} are needed to measure it")
    if tuple(fps.shape) != shape[:1]:
        raise InputError(f"fps has shape {tuple(fps.shape)}; give one number per clip, shape ({shape[0]},)")
    if decoded or not values:
        return
    low, high = frames.detach().aminmax()
    largest = float(torch.maximum(-low, high))
    if not largest <= 2.0:
        raise InputError(f"frames reach the value {largest}; give finite numbers in [0, 1] (divide 8-bit frames by 255)")
