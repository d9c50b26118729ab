"""Fréchet and MMD distances: golden numbers, closed forms, invariances, merging over processes, clips."""

from __future__ import annotations

import json
import math

import gloo_moments
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_benchmark_physics_iq import A, G

from visviva.data.video import write_video
from visviva.errors import InputError
from visviva.eval.benchmarks import Inputs, run
from visviva.eval.benchmarks.frechet import Moments, frechet, jackknife, jedi, mmd, polynomial, radial, together

E1, E2, E3 = gloo_moments.golden()
M1, M2, M3 = (Moments.of(e) for e in (E1, E2, E3))


@pytest.mark.parity
def test_golden_frechet():
    assert frechet(M1, M2) == pytest.approx(1.66200846, abs=2e-8)  # the published code's root of a singular product
    x, y = ((e - e.mean(0)).T / math.sqrt(63) for e in (E1, E2))
    nuclear = torch.linalg.svdvals(x.T @ y).sum()
    exact = (E1.mean(0) - E2.mean(0)).square().sum() + x.square().sum() + y.square().sum() - 2 * nuclear
    assert frechet(M1, M2) == pytest.approx(float(exact), abs=1e-11)
    assert frechet(M1, M3) == pytest.approx(25.3750803, abs=5e-8)
    assert frechet(M1, M3, unbiased=False) == pytest.approx(24.9788599, abs=5e-8)


@pytest.mark.parity
@pytest.mark.parametrize(("two", "moments", "value"), [(E2, M2, 0.77777080), (E3, M3, 54.7807931)])
def test_golden_jedi(two, moments, value):
    assert jedi(M1, moments) == pytest.approx(value, rel=1e-8)
    assert 100 * mmd(E1, two, polynomial()) == pytest.approx(value, rel=1e-8)


@pytest.mark.parity
def test_golden_polynomial_mmd():
    x = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    y = torch.tensor([[7.0, 6, 5], [4, 3, 2], [1, 1, 8], [0, 2, 5]])
    assert mmd(x, y, polynomial(2, 0.0, 1 / 3)) == pytest.approx(270.7222222, abs=5e-8)


def test_equal_sets_and_the_closed_form_of_one_dimension():
    assert frechet(M1, M1) == pytest.approx(0, abs=1e-9)
    assert jedi(M1, M1) == 0
    x = torch.tensor([[0.0], [2.0]])
    y = torch.tensor([[5.0], [11.0]])
    assert frechet(Moments.of(x), Moments.of(y)) == pytest.approx((1 - 8) ** 2 + (math.sqrt(2) - math.sqrt(18)) ** 2)


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_a_rotation_of_the_features_changes_nothing(seed):
    turn = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0]
    moved = [Moments.of(e @ turn) for e in (E1, E3)]
    assert frechet(*moved) == pytest.approx(frechet(M1, M3), rel=1e-9)
    assert jedi(*moved) == pytest.approx(jedi(M1, M3), rel=1e-9)
    assert mmd(E1 @ turn, E3 @ turn, radial(2.0)) == pytest.approx(mmd(E1, E3, radial(2.0)), rel=1e-9)


def test_unbiased_mmd_of_one_law_is_centred_and_the_biased_one_is_not():
    draws = [torch.randn(2, 40, 3, dtype=torch.float64) for _ in range(60)]
    unbiased, biased = (torch.tensor([mmd(d[0], d[1], radial(1.0), unbiased=u) for d in draws]) for u in (True, False))
    assert abs(float(unbiased.mean())) < 3 * float(unbiased.std()) / math.sqrt(60)
    assert float(biased.min()) > 0


@given(st.lists(st.integers(1, 63), min_size=1, max_size=5, unique=True))
@settings(max_examples=20, deadline=None)
def test_moments_of_parts_are_those_of_the_whole(cuts):
    parts = [Moments.of(e) for e in E3.tensor_split(sorted(cuts))]
    whole = together(parts)
    assert whole.count == 64
    assert torch.allclose(whole.mean, M3.mean, rtol=0, atol=1e-14)
    assert torch.allclose(whole.scatter, M3.scatter, rtol=0, atol=1e-11)


def test_far_from_zero_merging_keeps_its_digits():
    far = Moments.of(E3 + 1e6)
    merged = together([Moments.of(e + 1e6) for e in E3.split(7)])
    assert torch.allclose(merged.covariance(), M3.covariance(), rtol=0, atol=1e-8)
    assert torch.allclose(far.covariance(), M3.covariance(), rtol=0, atol=1e-8)


def test_two_processes_agree_with_one(tmp_path):
    torch.multiprocessing.spawn(gloo_moments.work, (tmp_path,), nprocs=2)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0] == found[1]
    *numbers, refused = found[0]
    assert numbers == pytest.approx([frechet(M1, M3), jedi(M1, M3), 64, frechet(M1, M3)], rel=1e-12)
    assert "features of [4, 5] dimensions" in refused


def test_sets_of_no_clip_and_of_other_dimensions():
    nothing = Moments.of(torch.zeros(0, 16))
    assert nothing.merged(nothing).count == 0
    assert torch.equal(nothing.merged(M1).scatter, M1.scatter)
    assert torch.equal(M1.merged(nothing).mean, M1.mean)
    for distance in (frechet, jedi):
        with pytest.raises(InputError, match="give at least"):
            distance(M1, nothing)
        with pytest.raises(InputError, match="16 and 1 dimensions"):
            distance(M1, Moments.of(torch.ones(5, 1)))
    with pytest.raises(InputError, match="16 and 1 dimensions"):
        M1.merged(Moments.of(torch.ones(5, 1)))


def test_without_processes_moments_are_their_own():
    assert M1.across() is M1


def test_the_interval_covers_and_needs_clips():
    low, high = jackknife(jedi, E1, E3)
    assert low < jedi(M1, M3) < high
    assert jackknife(jedi, E1[:2], E3) is None
    with pytest.raises(InputError, match="at least two"):
        frechet(Moments.of(E1[:1]), M2)
    with pytest.raises(InputError, match="finite"):
        Moments.of(E1 / 0)


def clips(folder, source, count=4):
    for k in range(count):
        write_video(folder / f"{k}.mp4", torch.roll(source[:12], 3 * k, 3), 8.0)
    return str(folder)


def test_sets_of_clips(tmp_path):
    real, same, other = clips(tmp_path / "r", A), clips(tmp_path / "s", A), clips(tmp_path / "o", 255 - G)
    (tmp_path / "o/bad.mp4").write_bytes(b"nothing")
    near = run("frechet", Inputs([same], reference=real, statistics={"resamples": 200}))
    far = run("frechet", Inputs([other], reference=real, statistics={"resamples": 200}))
    assert near["frechet"].value == pytest.approx(0, abs=1e-9)
    assert far["frechet"].value > 0.01
    assert far["jedi"].value > near["jedi"].value
    assert (far["frechet"].used, far["frechet"].asked) == (4, 5)
    assert near.standing == "uncalibrated"
    assert any("fewer clips than features" in note for note in near.notes)
    assert "no reference given" in run("frechet", Inputs([same])).skipped["all"]
    swapped = run("frechet", Inputs([same], reference=other, encoder=lambda frames: frames.mean((1, 3, 4))))
    assert any("1 of 5 real clips cannot be read and are left out, bad: " in note for note in swapped.notes)
    assert "features by <lambda>" in swapped["frechet"].note


def test_a_local_video_model_is_the_encoder(tmp_path):
    from transformers import VideoMAEConfig, VideoMAEModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = VideoMAEConfig(image_size=32, patch_size=16, num_frames=4, **sizes)
    VideoMAEModel(config).save_pretrained(tmp_path / "mae")
    real, other = clips(tmp_path / "r", A), clips(tmp_path / "o", G)
    result = run("frechet", Inputs([other], reference=real, encoder=str(tmp_path / "mae")))
    assert result["jedi"].value > 0
    assert "by mae" in result["frechet"].note
    assert result.standing == "uncalibrated"  # its features are held against nothing published
