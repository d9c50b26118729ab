"""Whether the camera stood still: global motion of the background, compensated where it is small and certain.

Every frame is aligned to the temporal median, and where that moves, to the middle frame (where that follows the object, to the
median of the frames aligned so far), by robust least squares on the grey values at all edges (inverse-compositional
Gauss-Newton, Baker and Matthews 2004): a similarity (shift, roll, zoom) and a gain and offset of brightness, with
Geman-McClure weights so that moving objects drop out. Edges are used jointly, so a wall with a door frame is enough; corners
are not needed. Each frame starts from its neighbour's answer, which is why motion between frames must stay within a few pixels
of the working image.

The result says *fixed*, *compensated* or *refused*, each with the sentence a report prints. A similarity is exact for a camera
that rolls or zooms, or for a flat background; the parallax of a walking camera is not removed, it shows as poor agreement and
is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

STILL = 0.15
"""Largest background shift [px of the working image] that counts as a fixed camera; the estimate's own noise is about 0.05."""

AGREEMENT = 0.8
"""Least correlation of an aligned frame with the reference at the edges for the alignment to be trusted."""

GAIN = 1.3
"""By what factor compensating a motion must reduce the variance left at the edges for the motion to be believed."""


@dataclass(frozen=True)
class CameraMotion:
    """Motion of the background through a clip.

    Attributes:
        transforms: for each frame, the similarity that carries reference-frame coordinates into it, (T, 2, 3) [px].
        shift: median displacement of the image corners and centre against the reference frame, (T,) [px].
        agreement: correlation of each aligned frame with the reference at the edges, robustly weighted, (T,); NaN without
            edges.
        verdict: ``fixed``, ``compensated`` or ``refused``.
        sentence: the verdict in words.
    """

    transforms: NDArray[np.float64]
    shift: NDArray[np.float64]
    agreement: NDArray[np.float64]
    verdict: str
    sentence: str


def camera_motion(frames: NDArray[np.uint8], still: float = STILL, largest: float = 0.1) -> CameraMotion:
    """Estimate the background's motion through grey frames (T, h, w), uint8, of a working size of a few hundred pixels.

    Args:
        still: shift up to which the camera counts as fixed [px].
        largest: shift above which the motion is not compensated, as a share of the image diagonal.

    Too little texture to align anything is not an error: the camera is then taken as fixed and the sentence says unverified.
    """
    count = len(frames)
    view = _Reference.of(np.median(frames[:: max(1, count // 25)], axis=0).astype(np.uint8))  # moving objects are not in it
    if view is None:
        sentence = "the background has too little texture to check whether the camera stood still; it is taken as fixed"
        return CameraMotion(_unmoved(count), np.zeros(count), np.full(count, np.nan), "fixed", sentence)
    transforms, agreement = _chained(view, frames, 0)
    stood = _stood(frames, view, transforms, agreement, still)
    if stood is not None:
        return stood
    lined_up = transforms if agreement.min() >= AGREEMENT else None
    transforms, agreement = _followed(frames, view, lined_up, largest * _diagonal(frames))
    return _judged(frames, transforms, agreement, largest)


def _stood(frames: NDArray, view: _Reference, transforms: NDArray, agreement: NDArray, still: float) -> CameraMotion | None:
    """Return that the camera stood still, if it did: the background hardly shifts, or lines up as well without a shift."""
    count, shift = len(frames), _shifts(frames, transforms)
    if agreement.min() >= AGREEMENT and shift.max() <= still:
        sentence = f"the camera stood still (the background shifts by at most {shift.max():.2f} px of a {_size(frames)})"
        return CameraMotion(_unmoved(count), shift, agreement, "fixed", sentence)
    unmoved = np.array([view.align(f, np.eye(2, 3), iterations=3, moving=False)[1] for f in frames])
    if unmoved.min() >= AGREEMENT and np.median((1 - unmoved**2) / np.maximum(1 - agreement**2, 1e-9)) < GAIN:
        sentence = "the background has too few edges to tell small motions, but lines up as it is; the camera is taken as fixed"
        return CameraMotion(_unmoved(count), np.zeros(count), unmoved, "fixed", sentence)
    return None


def _followed(
    frames: NDArray, view: _Reference, lined_up: NDArray | None, farthest: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Align every frame to the middle one, or to the median of frames lined up by ``lined_up`` where that goes too far."""
    middle = len(frames) // 2
    transforms, agreement = _chained(_Reference.of(frames[middle]) or view, frames, middle)
    if lined_up is not None and _shifts(frames, transforms).max() > farthest:  # the object may have been followed instead
        picked = slice(0, None, max(1, len(frames) // 25))
        sharp = np.median(stabilised(frames[picked, ..., None], lined_up[picked]), axis=0).astype(np.uint8)
        transforms, agreement = _chained(_Reference.of(sharp) or view, frames, middle)
    return transforms, agreement


def _judged(frames: NDArray, transforms: NDArray, agreement: NDArray, largest: float) -> CameraMotion:
    """Return the motion, refused where it cannot be told or is too large."""
    shift, diagonal = _shifts(frames, transforms), _diagonal(frames)
    lost = agreement < AGREEMENT
    if lost.mean() > 0.1 or lost.all():
        words = f"does not line up in {int(lost.sum())} of {len(frames)} frames, so camera motion cannot be removed"
        return CameraMotion(transforms, shift, agreement, "refused", f"the background {words}")
    if shift.max() > largest * diagonal:
        words = f"by {shift.max() / diagonal:.0%} of the image diagonal; at most {largest:.0%} is compensated"
        return CameraMotion(transforms, shift, agreement, "refused", f"the camera moves {words}")
    sentence = f"the camera moves by up to {shift.max():.1f} px of a {_size(frames)}; the motion is compensated"
    return CameraMotion(transforms, shift, agreement, "compensated", sentence)


def _unmoved(count: int) -> NDArray[np.float64]:
    return np.tile(np.eye(2, 3), (count, 1, 1))


def _diagonal(frames: NDArray) -> float:
    return float(np.hypot(frames.shape[2], frames.shape[1]))


def _size(frames: NDArray) -> str:
    return f"{frames.shape[2]}x{frames.shape[1]} working image"


def _shifts(frames: NDArray, transforms: NDArray) -> NDArray[np.float64]:
    return np.array([_shift(t, frames.shape[2], frames.shape[1]) for t in transforms])


def _chained(reference: _Reference, frames: NDArray, first: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Align every frame to the reference, outwards from frame ``first``, each started from its neighbour's answer."""
    transforms, agreement = _unmoved(len(frames)), np.ones(len(frames))
    for order in (range(first, len(frames)), range(first - 1, -1, -1)):
        start = np.eye(2, 3)
        for k in order:
            transforms[k], agreement[k] = reference.align(frames[k], start)
            start = transforms[k] if agreement[k] > AGREEMENT else start
    return transforms, agreement


def stabilised(frames: NDArray[np.uint8], transforms: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the frames (T, h, w, C) warped back onto the reference frame; borders are replicated."""
    height, width = frames.shape[1:3]
    warped = [
        cv2.warpAffine(f, t, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
        for f, t in zip(frames, transforms, strict=True)
    ]
    return np.stack(warped)


@dataclass(frozen=True)
class _Reference:
    """The reference frame at its edges: grey values, where they are, and how they change with the six parameters."""

    values: NDArray[np.float64]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    design: NDArray[np.float64]

    @classmethod
    def of(cls, frame: NDArray[np.uint8], most: int = 12000) -> _Reference | None:
        image = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 1.0)
        dx, dy = cv2.Sobel(image, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(image, cv2.CV_32F, 0, 1) / 8
        strength = np.hypot(dx, dy)
        strength[:4], strength[-4:], strength[:, :4], strength[:, -4:] = 0, 0, 0, 0
        edge = np.flatnonzero(strength.ravel() > max(1.5, float(np.quantile(strength, 0.8))))
        if len(edge) < 100:
            return None
        edge = edge[:: max(1, len(edge) // most)]
        height, width = frame.shape
        y, x = np.divmod(edge, width)
        u, v = x - (width - 1) / 2, y - (height - 1) / 2
        gx, gy, values = dx.ravel()[edge], dy.ravel()[edge], image.ravel()[edge]
        design = np.stack(
            [gx, gy, (gx * u + gy * v) / width, (gy * u - gx * v) / width, values / 100, np.ones(len(edge))], axis=1
        )
        return cls(values.astype(np.float64), x.astype(np.float32), y.astype(np.float32), design.astype(np.float64))

    def align(
        self, frame: NDArray[np.uint8], start: NDArray, iterations: int = 12, moving: bool = True
    ) -> tuple[NDArray[np.float64], float]:
        """Return the similarity from reference to frame coordinates and the agreement reached.

        With ``moving`` False the similarity stays as it starts, and only brightness is fitted.
        """
        height, width = frame.shape
        blurred = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 1.0)
        transform, light = start.copy(), np.zeros(2)
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        left, weight = np.zeros_like(self.values), np.ones_like(self.values)
        for _ in range(iterations):
            x = transform[0, 0] * self.x + transform[0, 1] * self.y + transform[0, 2]
            y = transform[1, 0] * self.x + transform[1, 1] * self.y + transform[1, 2]
            x, y = x.astype(np.float32)[:, None], y.astype(np.float32)[:, None]
            found = cv2.remap(blurred, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            sampled = found[:, 0].astype(np.float64)
            left = sampled - self.values - self.design[:, 4:] @ light
            scale = 1.4826 * float(np.median(np.abs(left))) + 0.5
            weight = (1 + (left / (3 * scale)) ** 2) ** -2
            weighted = self.design * weight[:, None]
            step, free = np.zeros(6), slice(0 if moving else 4, 6)
            normal = weighted.T @ self.design + 1e-2 * np.eye(6)
            step[free] = np.linalg.solve(normal[free, free], (weighted.T @ left)[free])
            light += step[4:]
            transform = _compose(transform, step[:4] / np.array([1, 1, width, width]), centre)
            if moving and np.abs(step[:4]).max() < 2e-3:
                break
        spread = np.average((self.values - np.average(self.values, weights=weight)) ** 2, weights=weight)
        unexplained = np.average(left**2, weights=weight) / max(spread, 1e-9)
        return transform, float(np.sqrt(max(0.0, 1 - unexplained)))


def _compose(transform: NDArray, step: NDArray, centre: NDArray) -> NDArray[np.float64]:
    """Return the transform after the inverse of a small similarity (shift x, shift y, zoom, roll) about the image centre."""
    shift, zoom, roll = step[:2], step[2], step[3]
    linear = np.array([[1 + zoom, -roll], [roll, 1 + zoom]])
    inverse = np.linalg.inv(linear)
    offset = centre - inverse @ (centre + shift)
    return np.hstack([transform[:, :2] @ inverse, (transform[:, :2] @ offset + transform[:, 2])[:, None]])


def _shift(transform: NDArray, width: int, height: int) -> float:
    points = np.array([[0, 0], [width, 0], [0, height], [width, height], [width / 2, height / 2]], dtype=np.float64)
    moved = points @ transform[:, :2].T + transform[:, 2]
    return float(np.median(np.linalg.norm(moved - points, axis=1)))
