"""The straight line that a tracked object follows, if it follows one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visviva.eval.breaks import Break, flights
from visviva.eval.track import Track

LEVEL = 5.0
"""Inclination up to which a path is taken to lie on a level surface [deg]."""


@dataclass(frozen=True)
class Line:
    """The straight line through the farthest stretch of a track: frames, unit direction (down, or along the motion),
    inclination from the horizontal [deg], root mean square distance from it [px], and the path's extent [px]."""

    frames: NDArray[np.int64]
    direction: NDArray[np.float64]
    inclination: float
    off: float
    extent: float

    @classmethod
    def of(cls, track: Track, breaks: list[Break]) -> Line:
        """Fit the line by principal axes."""
        frames = max(flights(track.positions, breaks), key=lambda s: float(np.linalg.norm(np.ptp(track.positions[s], axis=0))))
        p = track.positions[frames]
        axes = np.linalg.svd(p - p.mean(0), full_matrices=False)
        u, n = axes[2][0], len(frames)
        inclination = math.degrees(math.atan2(abs(u[1]), abs(u[0])))
        forward = float((p[n // 2 :].mean(0) - p[: n // 2].mean(0)) @ u) if inclination < LEVEL else u[1]
        return cls(frames, u if forward >= 0 else -u, inclination, float(axes[1][1]) / math.sqrt(n), float(np.ptp(p @ u)))

    def straight(self, sigma: float) -> bool:
        """Whether the path is straight: within 1 % of its extent, or within the tracking noise."""
        return self.off < max(0.01 * self.extent, 2.5 * sigma)
