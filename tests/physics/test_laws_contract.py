"""What every law must keep to. A law that is new in LAWS is tested by being there; it must ship a calibration."""

import dataclasses
import inspect

import pytest
import torch

from visviva import physics
from visviva.errors import InputError
from visviva.physics import LAWS, Measurement, Term, Verifier
from visviva.physics.laws.law import Law
from visviva.physics.sprites import random_sprites
from visviva.physics.violations import VIOLATIONS

FPS = 32.0
OPTIONS = {  # variants with other code paths; a new law is tested with its defaults without an entry here
    "constant_acceleration": [
        {"form": "material"},
        {"form": "eulerian"},
        {"form": "centroid"},
        {"form": "object", "window": 5},
    ],
    "mass_conservation": [{"distance": "cosine"}],
    "motion_floor": [{"fraction": 0.5}],
    "reference_flow": [{"within": "mask"}],
}
VARIANTS = [LAWS[name](**options) for name in LAWS for options in [{}, *OPTIONS.get(name, [])]]
every_law = pytest.mark.parametrize("law", VARIANTS, ids=repr)


class Truth:
    """A probe for tests: the exact flow and masks of a rendered scene, and average colours as features."""

    name, differentiable, measures = "truth", True, frozenset({"flow", "masks", "features"})

    def __init__(self, scene):
        self.drawn = scene.render()

    def __call__(self, frames, fps, masks=None):
        tokens = torch.nn.functional.avg_pool2d(frames.flatten(0, 1), 4).flatten(2).unflatten(0, frames.shape[:2])
        return Measurement(fps=fps, flow=self.drawn.flow, masks=self.drawn.masks, features=tokens.transpose(2, 3).flatten(1, 2))


def measured(scene):
    probe = Truth(scene)
    return probe(probe.drawn.frames, torch.full((scene.trajectory.shape[0],), FPS))


@pytest.fixture(scope="module")
def scenes():
    return random_sprites(12, seed=5)


def blocks(clips, frames, side):
    masks = torch.zeros(clips, frames, 2, side, side)
    masks[:, :, 0, : side // 2], masks[:, :, 1, side // 2 :] = 1, 1
    return masks


def full(clips=2, frames=6, side=16, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    quantities = {
        "flow": draw(clips, frames - 1, 2, side, side) * 4 - 2,
        "masks": blocks(clips, frames, side),
        "features": draw(clips, 10, 8),
    }
    fps = torch.full((clips,), FPS)
    reference = Measurement(fps=fps, **{k: v.flip(0) for k, v in quantities.items()})
    return Measurement(fps=fps, contact=torch.zeros(clips, frames, dtype=torch.bool), reference=reference, **quantities)


@every_law
def test_a_law_says_what_it_is(law):
    assert isinstance(law, Law)
    assert dataclasses.is_dataclass(law)
    assert law.name == next(name for name, kind in LAWS.items() if kind is type(law))
    assert law.needs <= {field.name for field in dataclasses.fields(Measurement)} - {"fps"}
    assert law.detects
    assert set(law.detects) <= set(VIOLATIONS)
    assert not (law.trivial and law.anchor)
    assert inspect.getdoc(type(law))
    with pytest.raises(dataclasses.FrozenInstanceError):
        law.name_of_nothing = 1


@every_law
def test_the_residual_has_the_promised_shapes_and_is_per_clip(law):
    both = full(clips=3)
    residual = law(both)
    assert residual.value.shape == residual.valid.shape == residual.sigma.shape == (3,)
    assert residual.valid.dtype == torch.bool
    assert bool(residual.valid.all())
    assert bool((residual.value >= 0).all())
    if residual.field is not None:
        assert residual.field.ndim == 4
        assert residual.field.shape[0] == 3
        assert not residual.field.requires_grad
    one = law(both[1:2])
    assert torch.allclose(one.value, residual.value[1:2], rtol=1e-5)


DEGENERATE = {
    "as drawn": {},
    "no motion": {"flow": 0.0},
    "no object": {"masks": 0.0},
    "all object": {"masks": 1.0},
    "blank features": {"features": 0.0},
    "fast": {"flow": 1e4},
    "flow NaN": {"flow": float("nan")},
    "masks NaN": {"masks": float("nan")},
    "features NaN": {"features": float("nan")},
}


@every_law
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_input_gives_finite_values_and_gradients(law, case):
    both = full()
    changes = {key: torch.full_like(getattr(both, key), value) for key, value in DEGENERATE[case].items()}
    leaves = {key: changes.get(key, getattr(both, key)).clone().requires_grad_() for key in ("flow", "masks", "features")}
    residual = law(both.with_(**leaves))
    assert torch.isfinite(residual.value).all()
    assert bool((residual.value >= 0).all())
    assert bool((residual.value[~residual.valid] == 0).all())
    if residual.value.requires_grad:
        residual.value.sum().backward()
    for leaf in leaves.values():
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()
    used = law.needs & set(DEGENERATE[case])
    if "NaN" in case and used:
        assert not bool(residual.valid.any())


@every_law
def test_one_broken_clip_does_not_touch_its_neighbours(law):
    both = full()
    broken = {}
    for key in ("flow", "masks", "features"):
        broken[key] = getattr(both, key).clone()
        broken[key][0].view(-1)[3] = float("nan")
    hurt = law(both.with_(**broken))
    assert not bool(hurt.valid[0])
    assert float(hurt.value[1]) == pytest.approx(float(law(both).value[1]), rel=1e-5)


@every_law
def test_what_a_law_needs_and_does_not_get_is_named(law):
    both = full()
    for need in law.needs:
        with pytest.raises(InputError, match=need):
            law(both.with_(**{need: None}))


@every_law
def test_every_declared_violation_is_separated_from_the_truth(law, scenes):
    """With true measurements: nine of ten violated clips lie above the same clip's truth, and the mean well above."""
    true = measured(scenes)
    perfect = law(true.with_(reference=true)).value
    for name in law.detects:
        violated = law(measured(VIOLATIONS[name](scenes)).with_(reference=true)).value
        assert float((violated > perfect).double().mean()) >= 0.9, name
        assert float(violated.mean()) > 1.5 * float(perfect.mean()) + 1e-4, name


ANCHORED = {
    "motion_floor": lambda: Term(LAWS["motion_floor"](fraction=0.5), 2.0),
    "mass_conservation": lambda: Term(LAWS["mass_conservation"](), 100.0),
    "reference_flow": lambda: Term(LAWS["reference_flow"](within="mask"), 1.0),
}


@pytest.fixture(scope="module")
def seen(scenes):
    """Estimated measurements of true, frozen, empty and noise clips, by a probe that is given the first frame's masks."""
    from visviva.models.probes import Combined, LucasKanade, PatchFeatures, TrackedMasks

    probe, fps = Combined(LucasKanade(), masks=TrackedMasks(), features=PatchFeatures()), torch.full((12,), FPS)
    drawn = scenes.render()
    truth = probe(drawn.frames, fps, drawn.masks)
    tricks = {name: probe(VIOLATIONS[name](scenes).render().frames, fps, drawn.masks) for name in ("freeze", "empty", "noise")}
    return probe, truth, tricks


@every_law
@pytest.mark.parametrize("trick", ["freeze", "empty", "noise"])
@pytest.mark.parametrize("anchor", ANCHORED)
def test_with_an_anchor_no_law_is_won_by_doing_nothing(law, anchor, trick, seen):
    if law.name == anchor:
        return
    probe, truth, tricks = seen
    verifier = Verifier(probe, [Term(law), ANCHORED[anchor]()])
    honest = verifier.judge(truth.with_(reference=truth)).loss
    cheated = verifier.judge(tricks[trick].with_(reference=truth)).loss
    assert bool((cheated > honest).all()), (honest, cheated)


def test_every_law_with_an_anchor_role_is_tried_as_one():
    assert {name for name, law in LAWS.items() if law.anchor} == set(ANCHORED)


@pytest.mark.parametrize("name", LAWS)
def test_every_law_ships_its_calibration(name):
    content = physics.calibration(name)
    assert content["law"] == name
    assert content["clips"] >= 100
    assert {"seed", "command", "versions"} <= set(content)
    for variant in content["variants"].values():
        for side in ("true", "estimated"):
            assert set(LAWS[name]().detects) <= set(variant[side]["violations"])
            assert variant[side]["floor"] >= 0
    default = next(iter(content["variants"].values()))
    for violation in LAWS[name]().detects:
        assert default["true"]["violations"][violation]["auc"] >= 0.9, violation
        assert default["estimated"]["violations"][violation]["auc"] >= 0.85, violation


def test_an_unknown_law_has_no_calibration_and_the_error_names_the_nearest():
    with pytest.raises(InputError, match="motion_floor"):
        physics.calibration("motion_flor")
