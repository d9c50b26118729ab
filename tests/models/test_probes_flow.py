"""The flow network that ships: accuracy beside DIS, gradients beside the truth and differences, confidence, robustness."""

import hashlib
import os
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from visviva.errors import InputError
from visviva.eval.benchmarks.flow import flow_errors, read_flow
from visviva.models.probes import DIS, FlowNetwork
from visviva.models.probes.flow import FlowPyramid
from visviva.physics.kinematics import difference, erode, object_velocity
from visviva.physics.laws import ConstantAcceleration
from visviva.physics.sprites import random_sprites, sprites
from visviva.physics.verify import Term, Verifier
from visviva.pipelines.pretrain.flow import held_out_scenes

RATE = torch.tensor([30.0])
MODEL = Path(str(resources.files("visviva"))) / "models" / "weights" / "flow-small"


@pytest.fixture(scope="module")
def probe():
    return FlowNetwork()


def clip_of(pair):
    return torch.stack([pair.first, pair.second], 1)


def test_held_out_scenes_are_seen_better_than_by_dis(probe):
    ours, theirs = [], []
    for pair in held_out_scenes(6):
        fps = RATE.expand(len(pair.first))
        for errors, estimator in ((ours, probe), (theirs, DIS())):
            errors.append(flow_errors(estimator(clip_of(pair), fps).flow[:, 0], pair.flow)["epe"].mean())
    assert float(torch.stack(ours).mean()) < 0.6 * float(torch.stack(theirs).mean())


@pytest.mark.parametrize("textured", [True, False])
def test_small_objects_in_small_clips(probe, textured):
    """Objects of 10-16 px in 64 x 64, up to 4 px/frame; Lucas-Kanade reaches 0.03 px/frame."""
    scene = random_sprites(12, seed=2, frames=9, textured=textured)
    drawn = scene.render()
    measured = probe((drawn.frames * 255).round() / 255, RATE.expand(12))
    velocity, _ = object_velocity(measured.flow, erode(drawn.masks[:, :-1], 1), measured.confidence)
    error, true = velocity - scene.trajectory.diff(dim=1), scene.trajectory.diff(dim=1)
    assert float(error.norm(dim=-1).median()) < 0.12
    assert float(error.square().mean().sqrt()) < 0.25
    speed = true.norm(dim=-1)
    assert abs(float(((error * true).sum(-1) / speed)[speed > 1].mean() / speed[speed > 1].mean())) < 0.1


def moved(base, distance):
    path = torch.tensor([[30.0, 32.0], [30.0, 32.0]]).repeat(4, 1, 1)[:, :, None]
    shift = torch.stack([torch.zeros(()), distance]).view(1, 2, 1, 1) * torch.tensor([1.0, 0.0])
    return sprites(base.background, base.texture[:, 0], base.alpha[:, 0], path + shift).render()


@pytest.mark.parametrize("textured", [True, False])
@pytest.mark.parametrize("distance", [0.5, 1.5, 3.5])
def test_the_gradient_is_that_of_the_true_displacement(probe, textured, distance):
    """d(mean flow in the mask) / d(displacement) through the renderer: truth 1, and central differences."""
    base = random_sprites(4, seed=0, frames=2, radius=(6.4, 8.0), textured=textured)

    def speed(at):
        drawn = moved(base, at)
        return object_velocity(probe(drawn.frames, RATE.expand(4)).flow, erode(drawn.masks[:, :1].detach(), 1))[0][:, 0, 0, 0]

    at = torch.tensor(distance, requires_grad=True)
    slopes = torch.stack([torch.autograd.grad(s, at, retain_graph=True)[0] for s in speed(at).unbind()])
    assert float(slopes.mean()) == pytest.approx(1, abs=0.2)
    with torch.no_grad():
        differences = (speed(torch.tensor(distance + 0.02)) - speed(torch.tensor(distance - 0.02))) / 0.04
    assert torch.allclose(slopes, differences, atol=0.15)


def test_a_step_along_the_gradient_of_a_law_lowers_the_true_residual(probe):
    """Objects thrown with jittering positions: descending the law's loss, seen through the network, straightens the motion."""
    scene = random_sprites(6, seed=3, frames=9)
    jitter = 0.4 * torch.randn(scene.trajectory.shape, generator=torch.Generator().manual_seed(0))
    path = (scene.trajectory + jitter).requires_grad_()
    verifier = Verifier(probe, [Term(ConstantAcceleration())], allow_trivial=True)

    def residual(at):
        return difference(at, 3).square().mean((1, 2, 3))

    drawn = replace(scene, trajectory=path).render()
    (slope,) = torch.autograd.grad(verifier(drawn.frames, RATE.expand(6), drawn.masks.detach()).loss.sum(), path)
    step = 0.15 * slope / slope.abs().amax((1, 2, 3), keepdim=True)
    before, after = residual(path.detach()), residual(path.detach() - step)
    assert int((after < before).sum()) >= 5
    assert float((after / before).mean()) < 0.85


def test_static_and_blank_pairs_have_no_flow(probe):
    frames = random_sprites(4, seed=1, frames=2).render().frames[:, :1].expand(-1, 3, -1, -1, -1)
    assert float(probe(frames, RATE.expand(4)).flow.norm(dim=2).mean()) < 0.05
    noisy = (frames + torch.randn(frames.shape, generator=torch.Generator().manual_seed(0)) * 3 / 255).clamp(0, 1)
    assert float(probe(noisy, RATE.expand(4)).flow.norm(dim=2).mean()) < 0.15
    for value in (0.0, 0.3, 1.0):
        assert float(probe(torch.full((1, 2, 3, 48, 40), value), RATE).flow.abs().max()) < 1e-3


def test_confidence_is_low_where_the_flow_is_wrong(probe):
    confidence, error = [], []
    for pair in held_out_scenes(6):
        measured = probe(clip_of(pair), RATE.expand(len(pair.first)))
        confidence.append(measured.confidence[:, 0, 0].flatten())
        error.append((measured.flow[:, 0] - pair.flow).norm(dim=1).flatten())
    confidence, error = torch.cat(confidence), torch.cat(error)
    assert float(confidence[error < 0.1].mean()) > float(confidence[error > 1].mean()) + 0.2
    thirds = error[confidence.argsort()].chunk(3)
    assert float(thirds[0].mean()) > 3 * float(thirds[2].mean())


def test_dis_takes_frames_as_they_were_decoded():
    frames = (random_sprites(2, seed=1, frames=4).render().frames * 255).round().to(torch.uint8)
    fps = RATE.expand(2)
    decoded, floats = DIS()(frames, fps).flow, DIS()(frames / 255, fps).flow
    assert float((decoded - floats).abs().mean()) < 2e-3  # luma may be rounded the other way
    assert float(floats.abs().mean()) > 0.02


@settings(max_examples=8, deadline=None)
@given(height=st.integers(17, 75), width=st.integers(17, 75), seed=st.integers(0, 99))
def test_pictures_of_any_size_keep_it(height, width, seed):
    frames = random_sprites(1, seed=seed, frames=2, height=height, width=width, radius=(4.0, 6.0)).render().frames
    flow = FlowNetwork()(frames, RATE).flow
    assert flow.shape == (1, 1, 2, height, width)
    assert torch.isfinite(flow).all()
    if min(height, width) >= 32:
        assert float(flow.abs().max()) < max(height, width)


def test_autocast_does_not_cost_sub_pixel_precision(probe):
    drawn = random_sprites(2, seed=1, frames=3).render()
    exact = probe(drawn.frames, RATE.expand(2)).flow
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(probe(drawn.frames, RATE.expand(2)).flow, exact)


def test_a_clip_in_parts_is_the_whole_clip(probe, monkeypatch):
    frames = random_sprites(2, seed=1, frames=5).render().frames

    def measured():
        leaf = frames.clone().requires_grad_()
        flow = probe(leaf, RATE.expand(2)).flow
        return flow.detach(), torch.autograd.grad(flow.square().sum(), leaf)[0]

    whole = measured()
    monkeypatch.setattr("visviva.models.probes.flow.network.CHUNK", 3 * 64 * 64)
    parts = measured()
    assert torch.allclose(whole[0], parts[0], atol=1e-4)
    assert torch.allclose(whole[1], parts[1], atol=1e-2 * float(whole[1].abs().max()))


def test_the_gradient_does_not_depend_on_the_training_option_only_its_reach():
    first, second = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for detach in (False, True):
        torch.manual_seed(0)
        network, leaf = FlowPyramid(detach=detach), first.clone().requires_grad_()
        flow = network(leaf, second)[0]
        found.append((flow.detach(), torch.autograd.grad(flow.square().sum(), leaf)[0]))
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.allclose(found[0][1], found[1][1], rtol=1e-2)


def test_weights_of_another_network_are_refused(tmp_path):
    weights = load_file(MODEL / "weights.safetensors")
    weights["cell.mix.weight"] = weights["cell.mix.weight"][:, :3].contiguous()
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"cell\.mix\.weight has shape"):
        FlowNetwork(tmp_path / "other.safetensors")


def test_what_ships_is_small_and_as_its_card_says():
    assert (MODEL / "weights.safetensors").stat().st_size <= 4 * 2**20
    lines = [line.split("  ") for line in (MODEL / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == {p.name for p in MODEL.iterdir()} - {"SHA256SUMS"}
    assert all(hashlib.sha256((MODEL / name).read_bytes()).hexdigest() == digest for digest, name in lines)
    count = sum(v.numel() for v in load_file(MODEL / "weights.safetensors").values())
    assert f"| parameters | {count} |" in (MODEL / "README.md").read_text()


@pytest.mark.real
def test_a_real_pair_is_seen_better_than_by_dis(probe):
    import cv2

    folder = Path(os.environ.get("VISVIVA_REAL", Path(__file__).parents[3] / "shared" / "real")) / "flow"
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}; set VISVIVA_REAL")
    images = [cv2.imread(str(folder / f"chairs_00001_img{i}.ppm"))[..., ::-1].copy() for i in (1, 2)]
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)[None].float() / 255
    true, known = read_flow(folder / "chairs_00001_flow.flo")
    with torch.no_grad():
        epe = flow_errors(probe(frames, RATE).flow[0, 0], true, known)["epe"]
    assert float(epe) < 0.85 * 2.70
