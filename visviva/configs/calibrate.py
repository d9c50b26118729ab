"""The settings of ``visviva calibrate``: how well each law tells violations of mechanics from the truth."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from tyro.conf import Positional

from visviva.configs.schema import Recipe


class CalibrateRecipe(Recipe):
    """Measure laws on clips with known motion and known violations: one JSON table per law, and a summary on screen."""

    verb: Literal["calibrate"] = "calibrate"
    """Which verb this recipe is for."""
    output: Positional[str] = "calibration"
    """Folder to write <law>.json to."""
    laws: list[str] = ["constant_acceleration", "mass_conservation", "motion_floor", "reference_flow"]
    """Which laws."""
    dataset: str | None = None
    """Folder of simulated clips with masks (visviva simulate): they are taken apart and rendered again, true and violated.
    Without it, scenes of the kinds that each law asks for are drawn."""
    clips: int = Field(200, ge=4)
    """How many clips, of each kind of scene; of a dataset at most as many as it has."""
    perfect: int = Field(0, ge=0)
    """How many more perfect clips to draw, of each kind of scene: their values set the alarm, which is then tried on the
    calibrated clips. 0: the calibrated clips themselves are halved."""
    sweeps: int = Field(0, ge=0)
    """How many drawn clips to see each law through noise, other resolutions and frame rates, and compression with; 0: none."""
    extend: bool = False
    """Only do the sweeps and add them to the tables that the output folder holds."""
    seed: int = Field(0, ge=0)
    """Seed of drawn scenes."""
    size: int = Field(64, ge=16)
    """Height and width of drawn scenes [px]; their objects are an eighth to a quarter as large."""
    frames: int = Field(17, ge=6)
    """Frames of drawn scenes."""
    features: str = "patches"
    """Appearance features of the estimated measurement: 'patches' (no weights), or 'vae:MODEL' with the autoencoder of a
    model folder, hub id or 'tiny'."""
    batch: int = Field(20, ge=1)
    """Clips measured together."""
