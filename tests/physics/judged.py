"""What is asked of every law of tracks: whom it judges, that clips do not spoil each other, that its gradient leads down."""

import pytest
import torch
from simulated_paths import stacked, tracks

from visviva.physics.measurement import Measurement
from visviva.physics.tracks import Tracks


def measured(seen, **more):
    """The measurement of tracks at 30 frames per second."""
    return Measurement(fps=torch.full((seen.positions.shape[0],), 30.0), tracks=seen, **more)


def judged(law, path, noise):
    """The residual of eight clips of one path with different noise, all of which the law must judge."""
    residual = law(measured(stacked([tracks(path, noise, seed=k) for k in range(8)])))
    assert bool(residual.valid.all())
    return residual


def assert_not_judged(law, path):
    residual = law(measured(tracks(path, 0.1)))
    assert not bool(residual.valid)
    assert float(residual.value) == 0
    assert law.trivial, "such clips are not told to be wrong, so the law wants an anchor"


def assert_broken_clips_are_left_out(law, seen, **more):
    """A clip that is not finite is not judged, and its neighbour in the batch has the value that it has alone."""
    both = stacked([seen, seen])
    both.positions[0, 3] = float("nan")
    residual = law(measured(both, **{name: value.expand(2, *value.shape[1:]) for name, value in more.items()}))
    assert residual.valid.tolist() == [False, True]
    assert float(residual.value[1]) == pytest.approx(float(law(measured(seen, **more)).value), abs=1e-9)


def assert_clips_without_objects_are_not_judged(law):
    nothing = Tracks(torch.zeros(2, 24, 0, 2), torch.zeros(2, 24, 0, dtype=torch.bool), torch.zeros(2, 24, 0))
    residual = law(measured(nothing))
    assert (residual.value.tolist(), residual.valid.tolist()) == ([0, 0], [False, False])


def assert_same_elsewhere(law, seen, x, zoom, mirror):
    """Neither the place, nor the size of a pixel, nor left and right change the value."""
    flip = torch.tensor([-1.0 if mirror else 1.0, 1.0])
    moved = seen.with_(positions=zoom * flip * seen.positions + x, sigma=zoom * seen.sigma)
    assert torch.allclose(law(measured(moved)).value, law(measured(seen)).value, atol=1e-6)


def assert_gradient_leads_down(law, seen, **more):
    position = seen.positions.detach().clone().requires_grad_()
    value = law(measured(seen.with_(positions=position), **more)).value
    (gradient,) = torch.autograd.grad(value.sum(), position)
    assert bool(torch.isfinite(gradient).all())
    lower = (position - 0.05 * gradient / gradient.norm()).detach()
    assert float(law(measured(seen.with_(positions=lower), **more)).value) < float(value.detach())


def between_frames(seen, part):
    """The tracks of a slice of the frames."""
    names = ("positions", "visible", "sigma") if seen.area is None else ("positions", "visible", "sigma", "area")
    return seen.with_(**{name: getattr(seen, name)[:, part] for name in names})
