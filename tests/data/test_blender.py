"""The photoreal renderer: same geometry as the ray tracer, one sentence where Blender is absent."""

from __future__ import annotations

import pytest

from visviva.data.scenes import simulate
from visviva.data.scenes.blender import blender_command
from visviva.errors import InputError


def available() -> bool:
    try:
        blender_command()
    except InputError:
        return False
    return True


def test_without_blender_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VISVIVA_BLENDER", str(tmp_path) + "/blender")
    with pytest.raises(InputError, match=r"visviva\[blender\].*VISVIVA_BLENDER"):
        simulate(n=1, renderer="blender")


@pytest.mark.slow
@pytest.mark.skipif(not available(), reason="no Blender: set VISVIVA_BLENDER to a Blender or a Python that has bpy")
def test_blender_draws_the_same_picture() -> None:
    for primitive in ("parabolic_throw", "ramp_up"):
        options = {"n": 1, "seed": 21, "height": 48, "width": 48, "frames": 2, "fps": 2.0, "flow": False}
        drawn, traced = (simulate(primitive, renderer=r, **options)[0] for r in ("blender", "warp"))
        assert drawn.masks.equal(traced.masks)
        assert drawn.caption == traced.caption
        seen = traced.masks.any(1)[:, None].expand_as(traced.frames)
        assert (drawn.frames - traced.frames)[seen].abs().mean() < 0.12  # its own light and shadows, the same object
        assert (drawn.frames - traced.frames).abs().mean() < 0.1
