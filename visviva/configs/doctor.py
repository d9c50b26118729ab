"""The settings of ``visviva doctor``."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro
from pydantic import Field

from visviva.configs.schema import Recipe


class DoctorRecipe(Recipe):
    """Say what works on this machine, what is missing, and how to mend it; exit status 1 if something needed does not work."""

    verb: Literal["doctor"] = "doctor"
    """Which verb this recipe is for."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object instead of one line per finding."""
    disk_gib: float = Field(5.0, ge=0)
    """Free space [GiB] below which the disk counts as too full."""
