"""VBench's motion dimensions: golden flicker, closed forms of the procedures, frozen clips, the leaderboard's totals, clips."""

from __future__ import annotations

import math

import pytest
import torch
from test_benchmark_physics_iq import A, G

from visviva.data.video import write_video
from visviva.errors import InputError
from visviva.eval.benchmarks import Inputs, run
from visviva.eval.benchmarks.encoders import ViTFrames
from visviva.eval.benchmarks.vbench import (
    RANGES,
    along_flow,
    blend,
    dynamic_degree,
    motion_smoothness,
    subject_consistency,
    temporal_flicker,
    totals,
)
from visviva.models.probes.dis import DIS
from visviva.models.probes.features import MEAN, STD
from visviva.physics.measurement import Measurement


class Flow:
    """A probe that sees the same speed in a share of the pixels of every pair."""

    name = "told"

    def __init__(self, speed, share=1.0):
        self.speed, self.share = speed, share

    def __call__(self, frames, fps, masks=None):
        b, t, _, h, w = frames.shape
        flow = torch.zeros(b, t - 1, 2, h * w)
        flow[:, :, 0, : int(self.share * h * w)] = self.speed
        return Measurement(fps=fps, flow=flow.view(b, t - 1, 2, h, w))


def ramp(values):
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)


@pytest.mark.parity
@pytest.mark.parametrize(("frames", "golden"), [(A, 0.9955845), (G, 0.9956383)])
def test_golden_flicker(frames, golden):
    assert temporal_flicker(frames) == pytest.approx(golden, abs=5e-8)


@pytest.mark.parametrize("count", [9, 10])
def test_even_and_odd_frames(count):
    assert motion_smoothness(ramp([3 * t for t in range(count)]), blend) == 1
    assert motion_smoothness(ramp([t * t for t in range(count)]), blend) == pytest.approx(254 / 255)


def test_a_flow_interpolator_beats_blending_on_a_moving_block():
    assert 1 > motion_smoothness(A, along_flow(DIS())) > motion_smoothness(A, blend)


@pytest.mark.parametrize(
    ("count", "fps", "speed", "share", "moves"),
    [
        (17, 8.0, 7.0, 1.0, True),
        (17, 8.0, 6.0, 1.0, False),  # exactly the threshold at 256 px
        (17, 8.0, 7.0, 0.04, False),  # the mean of the top 5 % is 5.6 px
        (17, 8.0, 7.0, 0.05, True),
        (10, 8.0, 7.0, 1.0, True),
        (2, 8.0, 0.0, 1.0, True),  # round(4 * 2 / 16) = 0 pairs are enough
        (1, 8.0, 99.0, 1.0, False),
        (4, 30.0, 0.0, 1.0, False),  # every fourth frame: one is left
    ],
)
def test_dynamic_degree_counts_pairs(count, fps, speed, share, moves):
    assert dynamic_degree(torch.zeros(count, 3, 256, 256), fps, Flow(speed, share)) is moves


def test_dynamic_degree_reads_the_flow_in_parts():
    sizes = []

    class Counted(Flow):
        def __call__(self, frames, fps, masks=None):
            sizes.append(frames.shape[1])
            return super().__call__(frames, fps, masks)

    assert dynamic_degree(torch.zeros(20, 3, 256, 256), 8.0, Counted(7.0)) is True
    assert sizes == [9, 9, 4]


def test_consistency_of_unit_vectors_at_known_angles():
    angles = torch.tensor([0.0, 0.3, 0.9, math.pi])
    features = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([1.0, 5.0, 0.1, 2.0])[:, None]
    steps, first = angles.diff().cos().clamp(min=0), angles[1:].cos().clamp(min=0)
    assert subject_consistency(features) == pytest.approx(float(((steps + first) / 2).mean()), abs=1e-6)


def test_a_frozen_clip_is_perfect_in_all_but_one():
    frozen = A[:1].expand(9, -1, -1, -1)
    assert temporal_flicker(frozen) == 1
    assert motion_smoothness(frozen, blend) == 1
    assert subject_consistency(torch.ones(9, 4)) == pytest.approx(1)
    assert dynamic_degree(frozen, 8.0, DIS()) is False


def test_totals_of_the_leaderboard():
    best, worst = ({n: r[k] for n, r in RANGES.items()} for k in (1, 0))
    assert totals(best) == pytest.approx({"quality": 1, "semantic": 1, "total": 1})
    assert totals(worst) == pytest.approx({"quality": 0, "semantic": 0, "total": 0})
    still = totals(best | {"dynamic degree": 0.0})
    assert still["quality"] == pytest.approx(6 / 6.5)
    assert still["total"] == pytest.approx((4 * 6 / 6.5 + 1) / 5)
    with pytest.raises(InputError, match="missing: scene"):
        totals({n: v for n, v in best.items() if n != "scene"})


def test_clips_and_a_stand_in_are_labelled(tmp_path):
    write_video(tmp_path / "moves.mp4", A[:12], 8.0)
    write_video(tmp_path / "still.mp4", A[:1].repeat(12, 1, 1, 1), 8.0)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    result = run("vbench-motion", Inputs([str(tmp_path)], statistics={"resamples": 200}))
    assert result.standing == "uncalibrated"
    assert "stand-in" in result["subject_consistency"].note
    clips = {r.key: r for r in result.clips}
    assert clips["still"].numbers["temporal_flicker"] > clips["moves"].numbers["temporal_flicker"]
    assert clips["still"].motion < 0.1 < clips["moves"].motion
    assert "cannot be decoded" in clips["broken"].failure
    assert (result["motion_smoothness"].used, result["motion_smoothness"].asked) == (2, 3)


def test_a_local_vision_transformer_gives_the_features(tmp_path):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    ViTModel(config).save_pretrained(tmp_path / "vit")
    write_video(tmp_path / "clips/a.mp4", A[:6], 8.0)
    result = run("vbench-motion", Inputs([str(tmp_path / "clips")], encoder=str(tmp_path / "vit")))
    assert 0 < result["subject_consistency"].value <= 1
    assert "by vit " in result["subject_consistency"].note
    with pytest.raises(InputError, match="no model in"):
        run("vbench-motion", Inputs([str(tmp_path / "clips")], encoder=str(tmp_path)))


def test_wide_frames_are_cut_not_squeezed(tmp_path):
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(image_size=32, patch_size=8, **sizes)).save_pretrained(tmp_path)
    encoder, seen = ViTFrames(tmp_path), []
    encoder.model.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    frames = torch.rand(2, 3, 48, 83)  # 32 x 55: the last 7 columns are no whole patch
    encoder(frames)
    whole = torch.nn.functional.interpolate(frames, size=(32, 55), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    assert torch.allclose(seen[0], ((whole - mean) / std)[..., :48], atol=1e-5)
