"""How recordings are measured, as a user gives it."""

from __future__ import annotations

from dataclasses import dataclass

from visviva.errors import InputError
from visviva.eval.gravity import Scale
from visviva.eval.kind import KINDS, Scales
from visviva.eval.ramp import Angle


@dataclass(frozen=True)
class Settings:
    """How recordings are measured.

    Attributes:
        metres_per_pixel: scale at the object's depth, with ``scale_error`` its relative standard error; None: no scale given.
        object_size: width of the moving object [m], with ``object_size_error``; measures the scale where none is given.
        time_scale: seconds of reality per second of playback (0.25 for a clip slowed down four times).
        timing_error: relative standard error of the frame clock.
        motion: ``auto`` recognises the kind of motion; ``fall``, ``pendulum`` and ``ramp`` force it.
        ramp_angle: inclination of the surface [deg], 0 for a level one; None: as seen in the image. ramp_angle_error: [deg].
        frame_rate: of folders of frames [1/s].
        laws: read the laws too.
    """

    metres_per_pixel: float | None = None
    scale_error: float = 0.03
    object_size: float | None = None
    object_size_error: float = 0.015
    time_scale: float = 1.0
    timing_error: float = 0.005
    motion: str = "auto"
    ramp_angle: float | None = None
    ramp_angle_error: float = 0.5
    level: float = 0.95
    max_frames: int | None = None
    frame_rate: float | None = None
    laws: bool = True

    def scales(self) -> Scales:
        """Return what is known of the scene.

        Raises:
            InputError: no such kind of motion; a scale or an angle that cannot be.
        """
        if self.motion not in KINDS:
            raise InputError(f"the motion {self.motion!r} is not known; choose one of {', '.join(KINDS)}")
        size = None if self.object_size is None else (self.object_size, self.object_size_error)
        return Scales(self._scale(), size, self._angle(), self.timing_error, self.level)

    def _scale(self) -> Scale | None:
        metres = self.metres_per_pixel
        if metres is None:
            return None
        if self.object_size is not None:
            raise InputError(
                f"both {metres:g} metres per pixel and an object of {self.object_size:g} m are given, which are two scales; "
                "give one of them"
            )
        if not metres > 0:
            raise InputError(f"metres per pixel must be positive, not {metres}")
        return Scale(metres, self.scale_error, f"{metres:.3g} m/px as given")

    def _angle(self) -> Angle | None:
        angle = self.ramp_angle
        if angle is None:
            return None
        if not 0 <= angle < 90:
            raise InputError(f"the ramp's angle must be 0 (level) to 90 degrees, not {angle}")
        source = f"at {angle:g} degrees as given" if angle else "on a level surface, as given"
        return Angle(angle, self.ramp_angle_error, source)


DEFAULT = Settings()
"""Nothing known of the scene."""
