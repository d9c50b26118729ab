"""Constant acceleration: between contacts the velocity of a body under gravity and dry friction changes linearly in time.

The residual is the squared second time difference of the measured velocity, ``|phi_{t+1} - 2 phi_t + phi_{t-1}|^2``
[(px/frame)^2], which is zero for every constant acceleration (also for none, and for a wrong g: this law never teaches
the value of g, and a frozen clip satisfies it). Four readings of "velocity":

- ``object``: mean flow inside each object's mask (the flow of the body, Lagrangian). Zero for perfect physics.
- ``material``: flow followed along itself, ``phi_{t+1}(x + phi_t(x)) - 2 phi_t(x) + phi_{t-1}(back-warped x)``, at pixels
  inside moving regions. Needs no masks; a few 1e-3 for perfect physics at 2-5 px/frame.
- ``eulerian``: at a fixed pixel, full frame: Proposition 1 of NewtonRewards (arXiv 2512.00425). Faithful to the paper and
  *not* zero for perfect physics: pixels that the object covers and uncovers contribute, so that it grows steeply with
  speed (2.7e-3 at 2 px/frame, 2.2e-2 at 3 px/frame for a disc of radius 12 in 128 x 128) and pushes motion to slow down.
- ``centroid``: difference of mask centroids; the gradient goes into the masks, so it needs a differentiable mask source.

Default ``auto``: ``object`` where masks were measured, ``material`` otherwise. This deviates from the paper on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.kinematics import centroids, difference, erode, inner_velocity
from visviva.physics.laws.law import Residual, finite, require, unknown, weighted_mean
from visviva.physics.laws.second_difference import (
    lines_in_runs,
    lines_in_windows,
    squared_along_motion,
    squared_over_pixels,
    standard_error,
)
from visviva.physics.measurement import Measurement

FORMS = ("auto", "object", "material", "eulerian", "centroid")
METHODS = ("torch", "warp")


@dataclass(frozen=True)
class ConstantAcceleration:
    """Residual of constant acceleration, [(px/frame)^2] (dimensionless with ``normalise``).

    For the forms with one velocity per object, each ``window`` of w consecutive velocities is fitted by a straight line
    in time and the residual is ``6 / (w - 2)`` times the sum of squares left, averaged over windows and objects. For
    w = 3 that is exactly the squared second difference; longer windows measure the same quantity with less noise and see
    slow violations better. The default None takes each run between contacts as one window: in calibration it tells gravity
    switched off midway from the truth where windows of 3 cannot, and is as good on everything else.

    Attributes:
        form: which velocity, see above.
        window: velocities per line fit in the forms ``object`` and ``centroid``; the other forms use 3.
        region: for ``eulerian``: mean over the whole ``frame`` (the paper) or inside the ``mask``.
        erode: pixels taken off detached masks before averaging flow, where at least half of the object is left.
        smooth: for ``material``: the second difference is averaged over squares of 2 smooth + 1 pixels inside the moving
            region before it is squared, so that the noise of single pixels does not count as a violation.
        normalise: divide by (mean speed + speed_floor)^2, detached, so that slow clips are not favoured.
        speed_floor: [px/frame].
        subtract_noise: take off the value that measurement noise alone would give, 12 noise^2; below it counts as zero.
        least_area: objects seen with fewer pixels than this in a frame are not measured there [px^2].
        method: for ``object``: ``torch``, or ``warp``, a kernel that scores many clips on a CPU faster, without gradient.

    Raises:
        InputError: unknown form, no flow (or masks) measured, fewer frames than a window needs.

    Example::

        law = ConstantAcceleration()
        residual = law(Measurement(fps=torch.tensor([30.0]), flow=torch.zeros(1, 16, 2, 64, 64)))
        residual.value  # tensor([0.])
    """

    form: str = "auto"
    window: int | None = None
    region: str = "frame"
    erode: int = 1
    smooth: int = 6
    normalise: bool = False
    speed_floor: float = 0.5
    subtract_noise: bool = True
    least_area: float = 4.0
    method: str = "torch"

    name: ClassVar[str] = "constant_acceleration"
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse options that cannot be meant."""
        if self.form not in FORMS:
            raise InputError(f"{self.form!r} is not a form of constant acceleration; use one of {', '.join(FORMS)}")
        if self.region not in ("frame", "mask"):
            raise InputError(f"region {self.region!r} is not known to constant acceleration; use 'frame' or 'mask'")
        if self.window is not None and self.window < 3:
            raise InputError(f"window {self.window} is too short to show a change of acceleration; use 3 or more, or None")
        if self.method not in METHODS or (self.method == "warp" and self.form != "object"):
            raise InputError(
                f"method {self.method!r} with form {self.form!r}; use one of {', '.join(METHODS)}, 'warp' with form 'object'"
            )
        if self.speed_floor <= 0:
            raise InputError(f"speed_floor {self.speed_floor} must be positive [px/frame], or static clips divide by zero")

    @property
    def detects(self) -> tuple[str, ...]:
        """Violations that it must separate from true clips; the paper's form separates fewer."""
        return ("jitter", "teleport") if self.form == "eulerian" else ("jitter", "dead_stop", "float", "teleport")

    @property
    def needs(self) -> frozenset[str]:
        """Measurement fields that must be there."""
        if self.form == "centroid":
            return frozenset({"masks"})
        masked = self.form == "object" or (self.form == "eulerian" and self.region == "mask")
        return frozenset({"flow", "masks"}) if masked else frozenset({"flow"})

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the residual of each clip; differentiable with respect to the flow (``centroid``: the masks)."""
        require(measurement, self.name, self.needs)
        form = self.form
        if form == "auto":
            form = "object" if measurement.masks is not None else "material"
        least = 3 if form in ("material", "eulerian") or self.window is None else self.window
        if (measurement.frames or 0) <= least:
            raise InputError(
                f"the law {self.name!r} needs {least + 1} frames ({least} velocities), the clip has {measurement.frames}; "
                "give longer clips or a shorter window"
            )
        if form in ("object", "centroid"):
            return self._of_objects(measurement, form)
        if form == "eulerian" and self.region == "frame":
            return self._of_frames(measurement)
        return self._of_pixels(measurement, form)

    def _of_objects(self, measurement: Measurement, form: str) -> Residual:
        masks = _given(measurement.masks)
        if form == "object":
            flow = _given(measurement.flow)
            velocity, area, clean = inner_velocity(flow, masks, measurement.confidence, self.erode, self.method)
        else:
            masks, clean = finite(masks)
            centre, area = centroids(masks)
            velocity, area = difference(centre), torch.minimum(area[:, 1:], area[:, :-1])
        free = _free(measurement, velocity) & clean[:, None]
        seen = (area.detach() >= self.least_area) & free[:, :, None]
        per_sample, freedom = (
            lines_in_runs(velocity, seen, self.method == "warp")
            if self.window is None
            else lines_in_windows(velocity, seen, self.window)
        )
        freedoms = freedom.sum((1, 2))
        value = per_sample.sum((1, 2)) / freedoms.clamp(min=1)
        overlap = 1 if self.window is None else self.window - 1
        sigma = standard_error(value, measurement.noise, freedoms / overlap)
        share = per_sample.detach() / freedom.clamp(min=1)

        def speed() -> Tensor:
            return weighted_mean(velocity.detach().norm(dim=-1), seen.to(velocity.dtype))

        def field() -> Tensor:
            return torch.einsum("btn,btnhw->bthw", share, finite(masks.detach())[0][:, :-1])

        return self._finish(value, freedoms > 0, sigma, speed, measurement.noise, field)

    def _of_pixels(self, measurement: Measurement, form: str) -> Residual:
        flow, clean = finite(_given(measurement.flow))
        free = _free(measurement, flow) & clean[:, None]
        free = (free[:, 2:] & free[:, 1:-1] & free[:, :-2])[:, :, None, None]
        if form == "eulerian":
            squared, weight = difference(flow, 2).square().sum(2), self._union(measurement)[:, 1:-1]
        else:
            squared, weight = squared_along_motion(flow, self._interior(measurement, flow), measurement.confidence, self.smooth)
        weight = (weight * free).detach()
        valid = (free if measurement.masks is None else weight > 0).flatten(1).any(1)
        value = weighted_mean(squared, weight)

        def speed() -> Tensor:
            return weighted_mean(flow[:, 1:-1].detach().norm(dim=2), weight)

        return self._finish(value, valid, unknown(value), speed, measurement.noise, lambda: squared.detach() * (weight > 0))

    def _of_frames(self, measurement: Measurement) -> Residual:
        """The paper's form over the whole frame."""
        flow = _given(measurement.flow)
        pixels = flow.shape[-2] * flow.shape[-1]
        squares, clean = squared_over_pixels(flow)
        free = _free(measurement, flow) & clean[:, None]
        free = free[:, 2:] & free[:, 1:-1] & free[:, :-2]
        value = weighted_mean(squares / pixels, free.to(flow.dtype))

        def speed() -> Tensor:
            return weighted_mean(flow[:, 1:-1].detach().norm(dim=2).mean((-2, -1)), free.to(flow.dtype))

        def field() -> Tensor:
            return difference(finite(flow.detach())[0], 2).square().sum(2) * free[:, :, None, None]

        return self._finish(value, free.any(1), unknown(value), speed, measurement.noise, field)

    def _finish(
        self,
        value: Tensor,
        valid: Tensor,
        sigma: Tensor,
        speed: Callable[[], Tensor],
        noise: Tensor | None,
        field: Callable[[], Tensor],
    ) -> Residual:
        if self.subtract_noise and noise is not None:
            value = torch.relu(value - 12 * noise.square())
        value, sigma = torch.where(valid, value, 0.0), torch.where(valid, sigma, 0.0)
        if not self.normalise:
            return Residual(value, valid, sigma, field)
        scale = (torch.where(valid, speed(), 0.0) + self.speed_floor).square()
        return Residual(value / scale, valid, sigma / scale, lambda: field() / scale[:, None, None, None])

    def _union(self, measurement: Measurement) -> Tensor:
        masks, _ = finite(_given(measurement.masks))
        return masks[:, :-1].detach().sum(2).clamp(max=1)

    def _interior(self, measurement: Measurement, flow: Tensor) -> Tensor:
        """Where flow is that of a body's inside: eroded masks, or the eroded moving region; shape (B, T-1, H, W)."""
        region = self._union(measurement) if measurement.masks is not None else moving(flow)
        return erode(region[:, :, None], 2 * self.erode)[:, :, 0]


def moving(flow: Tensor, threshold: float = 0.25) -> Tensor:
    """Return 1 where flow (B, T-1, 2, H, W) is faster than ``threshold`` and than half the frame's top speed [px/frame]."""
    speed = flow.detach().norm(dim=2)
    top = speed.amax((-2, -1), keepdim=True)
    return (speed > torch.clamp(0.5 * top, min=threshold)).to(flow.dtype)


def _given(quantity: Tensor | None) -> Tensor:
    if quantity is None:
        raise InputError("a quantity that the law needs was not measured")
    return quantity


def _free(measurement: Measurement, timed: Tensor) -> Tensor:
    """Which flows join two frames outside contact, shape (B, T-1)."""
    if measurement.contact is None:
        return torch.ones(timed.shape[:2], dtype=torch.bool, device=timed.device)
    contact = measurement.contact.to(timed.device)
    return ~(contact[:, 1:] | contact[:, :-1])
