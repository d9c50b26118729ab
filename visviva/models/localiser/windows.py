"""A clip as a bag of windows: what each object does in each few frames, as numbers that do not depend on where or how big."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.kinematics import object_velocity, window_fit
from visviva.physics.measurement import Measurement
from visviva.physics.tracks import Tracks

NAMES = (
    "speed",
    "acceleration",
    "position residual",
    "largest step against the mean",
    "smallest step against the mean",
    "area slope",
    "area residual",
    "shape change",
    "hidden share",
    "flow residual",
    "flow against path",
    "spin",
    "spin residual",
)
"""What the D numbers of a window are, all logarithmic: 0.02 px is the smallest length told from none."""

LEAST = 0.02


@dataclass(frozen=True)
class Windows:
    """Windows of a batch of clips, those of the first object first.

    Attributes:
        values: shape (B, W, D), see `NAMES`; finite.
        there: which windows belong to an object that is ever seen, shape (B, W), bool.
        first: first frame of each window, shape (W,).
        length: frames in a window.
        objects: which object each window belongs to, shape (W,).
        frames: T.
    """

    values: Tensor
    there: Tensor
    first: Tensor
    length: int
    objects: Tensor
    frames: int

    def per_frame(self, score: Float[Tensor, "B W"]) -> Float[Tensor, "B T"]:
        """Return for each frame the mean over the windows around it, of the object with the highest: where to look.

        Minus infinity in frames that no window covers: where the windows do not come out even, the last of the clip.
        """
        count = int(self.objects.max()) + 1
        by_object = score.unflatten(1, (count, -1))
        start = self.first[: by_object.shape[2]]
        at = torch.arange(self.frames, device=score.device)
        covers = ((at >= start[:, None]) & (at < start[:, None] + self.length)).to(score)
        mean = by_object @ covers / covers.sum(0).clamp(min=1)
        there = self.there.unflatten(1, (count, -1)).any(-1, keepdim=True) & (covers.sum(0) > 0)
        return torch.where(there, mean, -torch.inf).amax(1)


def windows_of(measured: Measurement, length: int = 6, stride: int = 2) -> Windows:
    """Return the windows of measured clips; needs masks (or tracks) of objects, and reads flow where it was measured.

    Raises:
        InputError: fewer frames than a window, or a measurement that is not finite: it must not look calm.
    """
    tracks = measured.tracked().detach()
    if tracks.frames < length:
        raise InputError(f"the clip has {tracks.frames} frames; a window takes {length}, so give longer clips")
    bad = [k for k, sound in enumerate(_sound(measured, tracks).tolist()) if not sound]
    if bad:
        raise InputError(f"the measurement of clip {bad[0]} of the batch holds NaN or infinity; leave such clips out")
    seen = tracks.visible
    whole = seen.unfold(1, length, stride).all(-1)
    path = _path(tracks.positions, seen, length, stride)
    size = _size(tracks.area, tracks.moments, length, stride, whole)
    hidden = 1 - seen.float().unfold(1, length, stride).mean(-1)
    columns = [*(torch.where(whole, c, 0.0) for c in (*path, *size)), hidden]
    columns += [torch.where(whole, c, 0.0) for c in _flow(measured, tracks.positions, length, stride)]
    spin = tracks.spin if tracks.spin is not None else torch.zeros_like(tracks.sigma[:, 1:])
    columns += [torch.where(whole, c, 0.0) for c in _of_rate(spin, length, stride, 0.002)]
    values = torch.nan_to_num(torch.stack(columns, dim=-1)).transpose(1, 2).flatten(1, 2)
    steps, count = whole.shape[1], whole.shape[2]
    first = (torch.arange(steps, device=values.device) * stride).repeat(count)
    objects = torch.arange(count, device=values.device).repeat_interleave(steps)
    return Windows(values, seen.any(1).repeat_interleave(steps, dim=1), first, length, objects, tracks.frames)


def _sound(measured: Measurement, tracks: Tracks) -> Bool[Tensor, " B"]:
    """Return which clips hold finite numbers wherever their objects are seen, and everywhere in the flow."""
    seen = tracks.visible
    both = seen[:, 1:] & seen[:, :-1]
    read = [(tracks.positions, seen), (tracks.area, seen), (tracks.moments, seen), (tracks.spin, both)]
    sound = torch.ones(len(seen), dtype=torch.bool, device=seen.device)
    for values, there in read:
        if values is not None:
            fine = values.isfinite().flatten(3).all(-1) if values.ndim > 3 else values.isfinite()
            sound &= (fine | ~there).flatten(1).all(1)
    return sound if measured.flow is None else sound & measured.flow.detach().isfinite().flatten(1).all(1)


def _log(x: Tensor, least: float = LEAST) -> Tensor:
    return torch.log(1 + x / least)


def _path(positions: Tensor, seen: Tensor, length: int, stride: int) -> list[Tensor]:
    """Speed, acceleration, residual of a quadratic, largest and smallest step; each (B, windows, N)."""
    count = positions.shape[2]
    fit = window_fit(torch.where(seen[..., None], positions, 0.0).flatten(2), length, 2)
    derivatives = fit.derivatives[:, ::stride].unflatten(-1, (count, 2))
    speed, acceleration = derivatives[:, :, 1].norm(dim=-1), derivatives[:, :, 2].norm(dim=-1)
    residual = (fit.squared[:, ::stride].unflatten(-1, (count, 2)).sum(-1) / fit.freedom).sqrt()
    step = (positions[:, 1:] - positions[:, :-1]).norm(dim=-1).unfold(1, length - 1, stride)
    mean = step.mean(-1)
    return [_log(speed), _log(acceleration), _log(residual), _log(step.amax(-1) - mean), _log(mean - step.amin(-1))]


def _size(area: Tensor | None, moments: Tensor | None, length: int, stride: int, whole: Tensor) -> list[Tensor]:
    """Slope and residual of log area, and how far the axes change; zeros where not measured."""
    nothing = torch.zeros_like(whole, dtype=torch.float32)
    slope = residual = change = nothing
    if area is not None:
        fit = window_fit(area.clamp(min=1e-3).log(), length, 1)
        slope, residual = (x[:, ::stride] for x in (fit.derivatives[:, :, 1].abs(), (fit.squared / fit.freedom).sqrt()))
    if moments is not None:
        axes = torch.linalg.eigvalsh(moments.float()).clamp(min=1e-3).log()
        ratio = (axes[..., 1] - axes[..., 0]).unfold(1, length, stride)
        change = ratio.amax(-1) - ratio.amin(-1)
    return [_log(slope), _log(residual), _log(change)]


def _flow(measured: Measurement, positions: Tensor, length: int, stride: int) -> list[Tensor]:
    """Residual of a straight line through the object's flow, and its distance from the steps of the path."""
    if measured.flow is None or measured.masks is None:
        nothing = torch.zeros_like(positions[:, : (positions.shape[1] - length) // stride + 1, :, 0])
        return [nothing, nothing]
    velocity, _ = object_velocity(measured.flow.detach(), measured.masks[:, :-1].detach(), measured.confidence)
    slip = (velocity - (positions[:, 1:] - positions[:, :-1])).norm(dim=-1).unfold(1, length - 1, stride).mean(-1)
    fit = window_fit(velocity.flatten(2), length - 1, 1)
    squared = fit.squared[:, ::stride].unflatten(-1, (positions.shape[2], 2)).sum(-1)
    return [_log((squared / fit.freedom).sqrt()), _log(slip)]


def _of_rate(rate: Float[Tensor, "B t N"], length: int, stride: int, least: float) -> list[Tensor]:
    """Mean and residual of a rate that should be constant."""
    fit = window_fit(rate, length - 1, 0)
    mean, residual = fit.derivatives[:, ::stride, 0].abs(), (fit.squared[:, ::stride] / fit.freedom).sqrt()
    return [_log(mean, least), _log(residual, least)]
