"""Training of the motion evaluator end to end, and what the shipped one is worth on clips that it has not seen."""

import hashlib
import json
from importlib import resources
from pathlib import Path

import pytest
import torch

from visviva.configs.pretrain import EvaluatorStage, PretrainRecipe
from visviva.data.actions import ACTIONS
from visviva.eval.motion import text as metrics
from visviva.models.motion.evaluator import MotionEvaluator
from visviva.pipelines.pretrain import run
from visviva.pipelines.pretrain.motion_evaluator import NAME, Pairs, action_alone, embedded, pairs, spoilt

SHIPPED = Path(str(resources.files("visviva.models"))) / "weights" / "motion-evaluator"


@pytest.fixture(scope="module")
def held():
    return pairs(12 * len(ACTIONS), seed=4242, seconds=3.0)


@pytest.fixture(scope="module")
def evaluator():
    return MotionEvaluator.load()


@pytest.mark.slow
def test_it_trains_and_writes_all_that_is_shipped(tmp_path):
    stage = EvaluatorStage(clips=64, held_out=64, steps=4, validate_every=2, batch_size=8, dim=8, width=8)
    model = run(PretrainRecipe(model="motion-evaluator", out=str(tmp_path), evaluator=stage))
    assert {f.name for f in model.iterdir()} == {f.name for f in SHIPPED.iterdir()}
    assert [json.loads(line)["step"] for line in (model / "evaluator.jsonl").read_text().splitlines()] == [2, 4]
    assert MotionEvaluator.load(model / "model.safetensors").name == NAME
    assert "R-precision, top 1" in (model / "README.md").read_text()


def test_what_is_shipped_is_small_and_whole():
    lines = [line.split("  ") for line in (SHIPPED / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == {f.name for f in SHIPPED.iterdir()} - {"SHA256SUMS"}
    assert all(hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() == digest for digest, name in lines)
    assert (SHIPPED / "model.safetensors").stat().st_size < 1.5e6
    assert MotionEvaluator.load().name == NAME
    recipe = json.loads((SHIPPED / "recipe.json").read_text())
    assert PretrainRecipe.model_validate(recipe).evaluator.clips >= 1000


def test_the_shipped_one_finds_the_motion_of_a_text(evaluator, held):
    with torch.no_grad():
        text, motion = evaluator.texts(held.captions), embedded(evaluator, held.joints)
    found = metrics.r_precision(text, motion)
    assert found[0] > action_alone(held)[0] + 0.1
    assert found[2] > 0.9
    assert metrics.mm_dist(text, motion) < 0.7 * metrics.mm_dist(text, motion.roll(7, 0))


def test_the_shipped_one_tells_spoilt_motions_from_true_ones(evaluator, held):
    true = embedded(evaluator, held.joints[::2])
    rest = held.joints[1::2]

    def distance(joints):
        return metrics.fid(embedded(evaluator, joints), true)

    generator = torch.Generator().manual_seed(0)
    base = distance(rest)
    frozen = distance(rest[:, :1].expand_as(rest))
    noisy = [distance(rest + size * torch.randn(rest.shape, generator=generator)) for size in (0.01, 0.05)]
    assert frozen > 4 * base
    assert base < noisy[0] < noisy[1]
    assert noisy[1] > 4 * base


def test_the_shipped_one_tells_actions_apart(evaluator, held):
    motion = embedded(evaluator, held.joints)
    centres = torch.stack([motion[held.kinds == kind].mean(0) for kind in range(len(ACTIONS))])
    nearest = torch.cdist(motion, centres).argmin(1)
    assert (nearest == held.kinds).double().mean() > 0.9


def test_who_knows_the_action_guesses_among_equal_ones():
    kinds = torch.arange(32) // 2
    assert action_alone(Pairs(torch.zeros(32, 1), ["a"] * 32, kinds)) == pytest.approx([0.5, 1.0, 1.0])


def test_spoilt_motions_are_no_true_ones():
    joints = torch.randn(40, 20, 22, 3, generator=torch.Generator().manual_seed(0)).cumsum(1) * 0.05
    found = spoilt(joints, torch.Generator().manual_seed(1))
    assert bool(((found - joints).abs().amax((1, 2, 3)) > 1e-3).all())
    frozen = (found.diff(dim=1).abs().amax((1, 2, 3)) == 0).sum()
    assert 4 <= int(frozen) <= 18
