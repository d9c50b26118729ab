"""Velocity and acceleration errors of a trajectory, and how well one constant acceleration explains it.

NewtonRewards (arXiv 2512.00425) names "velocity RMSE" and "acceleration RMSE" without publishing their code: whether velocities
come from centroids or from flow, the unit and the frame-rate normalisation are unknown. The definitions here are therefore a
**reconstruction**: forward differences of mask centroids, divided by the image height H where ``length`` says so,

    v_k = (c_{k+1} - c_k) / dt          RMSE_v = sqrt(mean_k |v_k - v*_k|^2)        [H/s]
    a_k = (v_{k+1} - v_k) / dt          RMSE_a = sqrt(mean_k |a_k - a*_k|^2)        [H/s^2]

(Euclidean norm inside, mean over frames outside; dt from true timestamps). Second differences amplify centroid noise of
standard deviation s to ``sqrt(6) s fps^2`` per axis, so never read RMSE_a without its noise floor, and fit before quoting an
acceleration. Slow-motion playback changes both units: divide the timestamps first. Frames without a centroid are cut, not
interpolated: a difference that touches one is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.kinematics import AccelerationFit, acceleration_fit


def velocities(positions: Float[Tensor, "T 2"], times: Float[Tensor, " S"]) -> Float[Tensor, "T-1 2"]:
    """Return forward differences of position over time, in the unit of ``positions`` per second; NaN next to a missing
    position."""
    _check(positions, times, 2)
    return positions.diff(dim=0) / times.diff()[:, None]


def accelerations(positions: Float[Tensor, "T 2"], times: Float[Tensor, " S"]) -> Float[Tensor, "T-2 2"]:
    """Return second differences over time; on uneven times, velocities differ over the distance of their interval midpoints."""
    _check(positions, times, 3)
    return velocities(positions, times).diff(dim=0) / (0.5 * (times[2:] - times[:-2]))[:, None]


def velocity_errors(
    positions: Float[Tensor, "T 2"], true: Float[Tensor, "T 2"], times: Float[Tensor, " S"]
) -> Float[Tensor, "T-1"]:
    """Return ``|v - v*|`` per interval, in position units per second; NaN where either trajectory is missing."""
    return torch.linalg.vector_norm(velocities(positions, times) - velocities(true, times), dim=1)


def acceleration_errors(
    positions: Float[Tensor, "T 2"], true: Float[Tensor, "T 2"], times: Float[Tensor, " S"]
) -> Float[Tensor, "T-2"]:
    """Return ``|a - a*|`` per inner frame, in position units per second squared; NaN where either trajectory is missing."""
    return torch.linalg.vector_norm(accelerations(positions, times) - accelerations(true, times), dim=1)


def rmse(errors: Float[Tensor, " n"]) -> float:
    """Return the root mean square of the finite errors; NaN if there is none (report the share used beside it).

    Example: ``rmse(velocity_errors(track, truth, times))`` is RMSE_v.
    """
    finite = errors[errors.isfinite()]
    return float(finite.square().mean().sqrt()) if len(finite) else math.nan


def flow_velocity(
    flow: Float[Tensor, "t 2 H W"], masks: Bool[Tensor, "T H W"], times: Float[Tensor, " S"]
) -> Float[Tensor, "T-1 2"]:
    """Return the object's velocity as the mean flow over its mask, over the frame interval [px/s]; NaN where the mask is empty.

    The second reading of "velocity" that the paper's name allows; print which one a number uses.
    """
    inside = masks[:-1, None].double()
    area = inside.sum((2, 3))
    return (flow.double() * inside).sum((2, 3)) / area / times.double().diff()[:, None]


@dataclass(frozen=True)
class QuadraticFit:
    """One constant acceleration fitted to one trajectory.

    Attributes:
        acceleration: fitted vector (ax, ay), y down, in position units per second squared.
        sigma: standard error of each component, from the residual, assuming independent errors (optimistic for real tracks).
        residual: root mean squared Euclidean distance from the fit, in position units.
        extent: diagonal of the path's bounding box, in position units.
        ratio: residual / extent. About 0.003 on filmed falls, 0.02-0.28 on generated ones; NaN for a path of zero extent.
        residuals: per frame, shape (T, 2); NaN where the position is missing.
        used: frames used.
    """

    acceleration: tuple[float, float]
    sigma: tuple[float, float]
    residual: float
    extent: float
    ratio: float
    residuals: Tensor
    used: int
    fit: AccelerationFit

    def at(self, times: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
        """Return the fitted positions at the given times."""
        return self.fit.at(times.double()[None])[0]


def quadratic_fit(positions: Float[Tensor, "T 2"], times: Float[Tensor, " S"]) -> QuadraticFit:
    """Fit ``c0 + v0 t + a t^2/2`` per coordinate by least squares over the frames that have a position.

    Reference-free: it needs no true clip. A frozen clip has ratio NaN, not 0, so that it cannot win.

    Errors: `InputError` with fewer than four positions (three are fitted exactly, whatever the motion).
    """
    _check(positions, times, 4)
    valid = positions.isfinite().all(1)
    if int(valid.sum()) < 4:
        raise InputError(
            f"a constant acceleration needs at least 4 tracked frames to be tested, this track has {int(valid.sum())}"
        )
    fit = acceleration_fit(positions.double()[None], times.double()[None], valid[None])
    residuals = torch.where(valid[:, None], positions.double() - fit.at(times.double()[None])[0], math.nan)
    path = positions.double()[valid]
    residual = float(residuals[valid].square().sum(1).mean().sqrt())
    extent = float(torch.linalg.vector_norm(path.amax(0) - path.amin(0)))
    ax, ay = fit.acceleration[0].tolist()
    sx, sy = fit.covariance[0, :, 2, 2].clamp(min=0).sqrt().tolist()
    ratio = residual / extent if extent > 0 else math.nan
    return QuadraticFit((ax, ay), (sx, sy), residual, extent, ratio, residuals, int(valid.sum()), fit)


def _check(positions: Tensor, times: Tensor, least: int) -> None:
    if len(positions) != len(times):
        raise InputError(f"{len(positions)} positions but {len(times)} timestamps; give one time per frame")
    if len(positions) < least:
        raise InputError(f"{len(positions)} frames are too few: at least {least} are needed")
    if not bool((times.diff() > 0).all()):
        raise InputError("timestamps must increase from frame to frame; re-encode the video or give its true frame times")
