"""What every law must keep to. A law that is new in LAWS is tested by being there; it must ship a calibration."""

import dataclasses
import inspect
from functools import cache

import pytest
import torch

from visviva import physics
from visviva.errors import InputError
from visviva.eval.calibrate import altered, scenes_of, variants
from visviva.eval.eyes import Eyes
from visviva.models.probes import LucasKanade, PatchFeatures
from visviva.models.probes.surprise import Extrapolation
from visviva.physics import LAWS, Measurement, Term, Verifier
from visviva.physics.laws.law import Law
from visviva.physics.motions import KINDS, draw
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
    "surprise": [{"power": 1.0}],
}
FORMS = [LAWS[name](**options) for name in LAWS for options in [{}, *OPTIONS.get(name, [])]]
every_law = pytest.mark.parametrize("law", FORMS, ids=repr)
EYES = Eyes(LucasKanade(levels=3, iterations=2), PatchFeatures(), Extrapolation(LucasKanade(levels=3, iterations=2)))


def exact(scene):
    """The true measurement, the tracks being those of the true masks and flow, so that gradients can be asked for."""
    measured = EYES.true(scene, scene.render(), torch.full((scene.trajectory.shape[0],), FPS))
    return measured if measured.tracks is not None and measured.tracks.look is not None else measured.with_(tracks=None)


@cache
def drawn(kind):
    """Scenes of a kind, one and two bodies where there may be either."""
    counts = (1, 2) if kind in ("moves", "falls", "pushes") else (1,)
    return [draw(kind, 10 // len(counts), seed=5, size=48, objects=count) for count in counts]


@cache
def truth(kind):
    return [exact(scene) for scene in drawn(kind)]


@cache
def broken(kind, name):
    """True measurements of the violated scenes of a kind, those of the same scenes unviolated, and which of them differ."""
    return [
        (exact(VIOLATIONS[name](scene)), true, altered(VIOLATIONS[name](scene), scene))
        for scene, true in zip(drawn(kind), truth(kind), strict=True)
        if VIOLATIONS[name].applies(scene)
    ]


@cache
def shaken(kind, clips):
    scene = draw(kind, 3, seed=3, size=32, objects=2)
    measured = exact(VIOLATIONS["jitter"](scene)).with_(tracks=None)
    scale = torch.full((3,), 0.02) if scene.metres is None else scene.metres
    full = measured.with_(reference=exact(scene).with_(tracks=None), scale=scale, surprise=EYES.surprise(*shot(scene)).surprise)
    still = torch.zeros_like(full.masks[:, :, 0, 0, 0], dtype=torch.bool)
    return full.with_(contact=still if scene.contact is None else scene.contact)[:clips]


def shot(scene):
    return scene.render().frames.clamp(0, 1), torch.full((scene.trajectory.shape[0],), FPS)


def full(law, clips=2):
    """Everything that can be measured of clips to which the law applies, none of them perfect."""
    return shaken(scenes_of(law)[0], clips)


LEAVES = ("flow", "masks", "features", "surprise", "scale")


def read_by(law):
    """The leaves that a law looks at; tracks are derived from masks."""
    return (law.needs | ({"masks"} if "tracks" in law.needs else set())) & set(LEAVES)


@every_law
def test_a_law_says_what_it_is(law):
    assert isinstance(law, Law)
    assert dataclasses.is_dataclass(law)
    assert law.name == next(name for name, kind in LAWS.items() if kind is type(law))
    assert law.needs <= {field.name for field in dataclasses.fields(Measurement)} - {"fps"}
    assert law.detects
    assert set(law.detects) <= set(VIOLATIONS)
    assert set(scenes_of(law)) <= set(KINDS)
    assert not (law.trivial and law.anchor)
    assert inspect.getdoc(type(law))
    with pytest.raises(dataclasses.FrozenInstanceError):
        law.name_of_nothing = 1


@every_law
def test_the_residual_has_the_promised_shapes_and_is_per_clip(law):
    both = full(law, clips=3)
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
    assert torch.allclose(one.value, residual.value[1:2], rtol=1e-5, atol=1e-6)


DEGENERATE = {
    "as drawn": {},
    "no motion": {"flow": 0.0},
    "no object": {"masks": 0.0},
    "all object": {"masks": 1.0},
    "blank features": {"features": 0.0},
    "no surprise": {"surprise": 0.0},
    "no scale": {"scale": float("nan")},
    "fast": {"flow": 1e4},
    "flow NaN": {"flow": float("nan")},
    "masks NaN": {"masks": float("nan")},
    "features NaN": {"features": float("nan")},
    "surprise NaN": {"surprise": float("nan")},
}


@every_law
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_input_gives_finite_values_and_gradients(law, case):
    both = full(law)
    changes = {key: torch.full_like(getattr(both, key), value) for key, value in DEGENERATE[case].items()}
    leaves = {key: changes.get(key, getattr(both, key)).clone().requires_grad_() for key in LEAVES}
    residual = law(both.with_(**leaves))
    assert torch.isfinite(residual.value).all()
    assert bool((residual.value >= 0).all())
    assert bool((residual.value[~residual.valid] == 0).all())
    if residual.value.requires_grad:
        residual.value.sum().backward()
    for leaf in leaves.values():
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()
    if ("NaN" in case or case == "no scale") and read_by(law) & set(DEGENERATE[case]):
        assert not bool(residual.valid.any())


@every_law
def test_clips_without_objects_are_measured_or_not_judged(law):
    """Masks of no object at all (an empty scene, a tracker that found nothing) are no error and no NaN."""

    def bare(measurement):
        return measurement.with_(masks=measurement.masks[:, :, :0], tracks=None)

    both = full(law)
    residual = law(bare(both).with_(reference=bare(both.reference)))
    assert torch.isfinite(residual.value).all()
    assert bool((residual.value >= 0).all())
    assert not bool(residual.valid.any()) or not {"masks", "tracks"} & law.needs


@every_law
def test_one_broken_clip_does_not_touch_its_neighbours(law):
    both = full(law)
    hurt = {}
    for key in ("flow", "masks", "features", "surprise"):
        hurt[key] = getattr(both, key).clone()
        hurt[key][0].view(-1)[3] = float("nan")
    hurt = law(both.with_(**hurt))
    assert not bool(hurt.valid[0])
    assert float(hurt.value[1]) == pytest.approx(float(law(both).value[1]), rel=1e-5)


@every_law
def test_what_a_law_needs_and_does_not_get_is_named(law):
    both = full(law)
    for need in law.needs:
        gone = {"tracks": None, "masks": None} if need == "tracks" else {need: None}
        with pytest.raises(InputError, match=need):
            law(both.with_(**gone))


@every_law
def test_every_declared_violation_is_separated_from_the_truth(law):
    """With true measurements, on the kinds of scenes that the law is for: nine of ten violated clips lie above the same
    clip's truth, and the mean well above."""
    for name in law.detects:
        perfect, violated = [], []
        for kind in scenes_of(law):
            for measured, true, differs in broken(kind, name):
                perfect.append(law(true.with_(reference=true)).value[differs])
                violated.append(law(measured.with_(reference=true)).value[differs])
        assert violated, f"{name} applies to none of {scenes_of(law)}"
        perfect, violated = torch.cat(perfect), torch.cat(violated)
        assert float((violated > perfect).double().mean()) >= 0.9, name
        assert float(violated.mean()) > 1.5 * float(perfect.mean()) + 1e-4, name


ANCHORED = {
    "motion_floor": lambda: Term(LAWS["motion_floor"](fraction=0.5), 2.0),
    "mass_conservation": lambda: Term(LAWS["mass_conservation"](), 100.0),
    "reference_flow": lambda: Term(LAWS["reference_flow"](within="mask"), 1.0),
    "trajectory_offset": lambda: Term(LAWS["trajectory_offset"](), 10.0),
    "force_response": lambda: Term(LAWS["force_response"](), 10.0),
}


class Sees:
    """A probe in name only: the verifiers below judge what was measured before."""

    name, differentiable, measures = "sees", False, frozenset(field.name for field in dataclasses.fields(Measurement))

    def __call__(self, frames, fps, masks=None):
        return Measurement(fps=fps, masks=masks)


@cache
def seen(kind, trick):
    """The estimated measurement of true, frozen, empty or noise clips of a kind; the first frame's masks are known."""
    scene = draw(kind, 4, seed=5, size=48)
    first = scene.render().masks[:, :1]
    shown = VIOLATIONS[trick](scene) if trick else scene
    found = EYES.estimate(shown, shown.render(), torch.full((4,), FPS), first, take=0)
    return found if found.scale is not None else found.with_(scale=torch.full((4,), torch.nan))


@every_law
@pytest.mark.parametrize("trick", ["freeze", "empty", "noise"])
@pytest.mark.parametrize("anchor", [name for name in ANCHORED if name in LAWS])
def test_with_an_anchor_no_law_is_won_by_doing_nothing(law, anchor, trick):
    if law.name == anchor:
        return
    held = next(x for x in (LAWS[anchor](), law) if x is law or "force" in x.needs)  # only pushes have commanded forces
    true, trickery = (seen(scenes_of(held)[0], name) for name in ("", trick))
    verifier = Verifier(Sees(), [Term(law), ANCHORED[anchor]()])
    honest = verifier.judge(true.with_(reference=true))
    cheated = verifier.judge(trickery.with_(reference=true))
    worse = cheated.loss > honest.loss
    if (law.name, anchor, trick) in UNJUDGED:
        worse = cheated.unmeasured > honest.unmeasured
    assert bool(worse.all()), (honest.loss, cheated.loss)


def test_every_law_with_an_anchor_role_is_tried_as_one():
    assert {name for name, law in LAWS.items() if law.anchor} == set(ANCHORED) & set(LAWS)


@pytest.mark.parametrize("name", LAWS)
def test_every_law_ships_its_calibration(name):
    """Of the clips that it judges, nearly all, violated ones rank above true ones, or the table says not; alarms are true."""
    content = physics.calibration(name)
    forms = variants(name)
    default = next(iter(forms.values()))
    assert content["law"] == name
    assert content["clips"] >= (100 if name in SIMULATED else FEW.get(name, 60))
    assert {"seed", "command", "versions"} <= set(content)
    for form, variant in content["variants"].items():
        for side in ("true", "estimated"):
            assert set(forms[form].detects) <= set(variant[side]["violations"])
            assert variant[side]["floor"] >= 0
    shipped = next(iter(content["variants"].values()))
    for violation in default.detects:
        for side, bar in (("true", 0.99), ("estimated", HARD.get(violation, 0.95))):
            row = shipped[side]["violations"][violation]
            assert row.get("judged", 1.0) >= 0.9, violation
            missed = row.get("judged_auc", row["auc"]) < bar
            assert missed == (side == "estimated" and violation in NOT_REACHED.get(name, ())), (violation, side)
    if name not in FEW:
        assert shipped["estimated"]["alarm"]["false_alarms"] <= 0.05


SIMULATED = ("constant_acceleration", "mass_conservation", "motion_floor", "reference_flow")
"""Laws calibrated on simulated clips; the others have 60 drawn ones of each of their kinds."""

FEW = {"surprise": 60}
"""Laws with fewer clips, whose alarm is set on 30 and tried on 30, which tells little: known and in the docs."""

UNJUDGED = {(law, "motion_floor", "noise") for law in ("free_fall", "friction", "gravity_direction")}
"""Noise moves, and these laws do not judge it: its loss is that of the truth, but it ranks last (no evidence, no reward)."""

HARD = {"energy_gain": 0.85, "wrong_spin": 0.85}
"""Violations that estimated measurements show less clearly, and how clearly they must."""

NOT_REACHED = {"reference_flow": ("dead_stop", "float", "teleport")}
"""Violations that a law declares and that estimated measurements do not show well enough: known, and in the tables. Flow over
the whole frame dilutes small objects; within their masks all three are told."""


def test_an_unknown_law_has_no_calibration_and_the_error_names_the_nearest():
    with pytest.raises(InputError, match="motion_floor"):
        physics.calibration("motion_flor")
