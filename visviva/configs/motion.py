"""The settings of ``visviva motion``: motions of people in, metrics.json, report.html and plots out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from tyro.conf import Positional, arg

from visviva.configs.schema import Recipe


class MotionRecipe(Recipe):
    """Measure motions of people (visviva motion evaluate FILES): feet and ground, smoothness, bones, flight; errors against a
    reference where there is one."""

    verb: Literal["motion"] = "motion"
    """Which verb this recipe is for."""
    action: Positional[Literal["evaluate", "reestimate"]] = "evaluate"
    """evaluate: measure; reestimate: repair motions so that they obey dynamics, and say what changed."""
    files: Positional[list[str]] = []
    """Motion files, or folders of them: BVH, TRC, C3D, AMASS/SMPL .npz, HumanML3D .npy (joints or features), .npz of joints."""
    output: Annotated[str, arg(aliases=["--out"])] = "runs/motion"
    """Folder to write: metrics.json, report.html, plots."""
    reference: str = ""
    """A motion to compare each file with, or a folder with a motion of the same name for each: MPJPE, PA-MPJPE, velocity and
    acceleration errors."""
    frame_rate: Annotated[float | None, arg(aliases=["--fps"])] = Field(None, gt=0)
    """Frames per second, where a file does not say or says it wrongly."""
    units: Literal["m", "cm", "mm", "inch", "ft", "dm", "cmu"] | None = None
    """Units of length of the files; left out, what a file states, or what makes the body of human size; cmu: of CMU's
    BVH files."""
    stature: float | None = Field(None, ge=0.3, le=3)
    """Height of the person [m], from which the scale follows; instead of units."""
    up: Literal["x", "y", "z", "-x", "-y", "-z"] | None = None
    """The up axis of the files; left out, the one along which the body stands."""
    hand: Literal["left", "right"] | None = None
    """left: the axes are left-handed and are mirrored; right: they are taken as they are, whatever the joints' names
    say."""
    floor: float | None = None
    """Height of the floor [m] after conversion to z up; left out, the format's, or estimated from the lowest foot."""
    mass: float | None = Field(None, gt=0, lt=1000)
    """Mass of the person [kg]; left out, of an average adult of this stature."""
    noise: float | None = Field(None, gt=0, le=1)
    """reestimate: how far a coordinate of a joint may be wrong [m]; left out, found from the joints' scatter, 0.01 at least."""
    steps: int = Field(60, ge=1)
    """reestimate: steps of each of the two optimizations."""
    shown: int = Field(8, ge=0)
    """Motions with an animated body and plots in the report."""
