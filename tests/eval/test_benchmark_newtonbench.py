"""NewtonBench, PISA and frame fidelity over clips with truth: identities, penalties, failures, LPIPS."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from drawn_films import film, parabola
from safetensors.torch import save_file
from test_trajectory import PREDICTED, TRUE

from visviva.data.clip import Clip
from visviva.data.dataset import write_rows
from visviva.data.video import write_video
from visviva.errors import InputError
from visviva.eval.benchmarks import Inputs, run
from visviva.eval.benchmarks.fidelity import run as fidelity
from visviva.eval.benchmarks.lpips import LPIPS
from visviva.eval.benchmarks.pisa import numbers

COUNT, FPS, SIZE, RADIUS = 9, 24.0, (64, 64), 6.0
STATISTICS = {"resamples": 200}


def throw(scene, gravity=180.0):
    positions, _ = parabola(COUNT, FPS, (10, 50), (70 + 5 * scene, -130), gravity)
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    masks = np.stack([np.hypot(xs - p[0], ys - p[1]) <= RADIUS for p in positions])
    meta = {"scene": f"s{scene}", "primitive": "parabolic_throw", "split": "id"}
    return Clip(
        film(positions, SIZE, RADIUS, seed=scene).float() / 255, FPS, "", masks=torch.from_numpy(masks)[:, None], meta=meta
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """True clips; generated ones: the truth again, a weaker gravity, a frozen first frame, and a broken file."""
    folder = tmp_path_factory.mktemp("data")
    true = [throw(s) for s in range(4)]
    write_rows(folder / "true/metadata.jsonl", [c.write(folder / "true", f"{s}", arrays="small") for s, c in enumerate(true)])
    frames = [true[0].frames, throw(1, 120.0).frames, true[2].frames[:1].repeat(COUNT, 1, 1, 1)]
    for s, f in enumerate(frames):
        write_video(folder / f"made/{s}.mp4", f, FPS)
    (folder / "made/3.mp4").write_bytes(b"nothing")
    rows = [{"id": f"g{s}", "file_name": f"{s}.mp4", "caption": "", "scene": f"s{s}"} for s in range(4)]
    write_rows(folder / "made/metadata.jsonl", rows)
    return folder


def inputs(data):
    return Inputs([str(data / "made")], reference=str(data / "true"), statistics=STATISTICS)


def test_newtonbench_penalises_what_cannot_be_read_and_shows_what_is_frozen(data):
    result = run("newtonbench", inputs(data))
    clips = {r.key: r for r in result.clips}
    assert result.standing == "reconstruction"
    assert clips["g0"].numbers["iou"] > 0.85
    assert clips["g0"].numbers["l2"] < clips["g1"].numbers["l2"] < clips["g2"].numbers["l2"]
    assert clips["g3"].numbers["iou"] == 0
    assert "cannot be decoded" in clips["g3"].failure
    assert clips["g2"].motion < 0.2 < 0.8 < clips["g0"].motion
    assert (result["iou"].used, result["iou"].asked) == (4, 4)
    assert result["l2"].low < result["l2"].value < result["l2"].high


def test_pisa_drops_as_published_and_says_so(data):
    result = run("pisa", inputs(data))
    assert result.standing == "uncalibrated"
    assert result["l2_pisa"].used == 3  # the unreadable clip has no distance ...
    assert result["iou"].used == 4  # ... but an overlap of 0
    assert result["lost"].value > 0.2
    assert not result["iou"].lower_is_better


@pytest.mark.parity
def test_pisa_golden_numbers_of_one_object():
    found = numbers(PREDICTED, TRUE, 16.0, 16.0)
    golden = {"l2_pisa": 0.035907766, "chamfer": 0.040278435, "iou": 0.357716506, "l2": 0.062974639}
    assert {k: found[k] for k in golden} == pytest.approx(golden, abs=5e-10)
    assert found["lost"] == 0
    half = PREDICTED.clone()
    half[4:] = False
    assert numbers(half, TRUE, 16.0, 16.0)["lost"] == 0.5
    assert numbers(half, TRUE, 16.0, 16.0)["l2_pisa"] < found["l2_pisa"]  # why the share stands beside it


def test_fidelity_of_clips(data):
    result = run("fidelity", inputs(data))
    clips = {r.key: r for r in result.clips}
    assert clips["g0"].numbers["psnr"] > 40 > 35 > clips["g2"].numbers["psnr"]
    assert clips["g0"].numbers["ssim"] > 0.95
    assert "no weights" in result.skipped["lpips"]
    assert clips["g2"].motion < clips["g0"].motion
    distance = fidelity(inputs(data), LPIPS())["lpips"]
    assert distance.lower_is_better
    assert distance.used == 3


@pytest.mark.parametrize("name", ["newtonbench", "pisa", "fidelity"])
def test_a_clip_that_ends_early_says_how_much_of_its_truth_it_covers(data, tmp_path, name):
    """Three frozen frames look better than nine in every number; what stands beside them must tell."""
    frozen = throw(2).frames[:1].repeat(COUNT, 1, 1, 1)
    rows = []
    for count in (3, COUNT):
        write_video(tmp_path / f"{count}.mp4", frozen[:count], FPS)
        rows.append({"id": f"{count}", "file_name": f"{count}.mp4", "caption": "", "scene": "s2"})
    write_rows(tmp_path / "metadata.jsonl", rows)
    result = run(name, Inputs([str(tmp_path)], reference=str(data / "true"), statistics=STATISTICS))
    clips = {r.key: r.numbers for r in result.clips}
    better = "psnr" if name == "fidelity" else "iou"
    assert clips["3"][better] > clips["9"][better]
    assert (clips["3"]["covered"], clips["9"]["covered"]) == pytest.approx((3 / COUNT, 1))
    assert result["covered"].value == pytest.approx((3 / COUNT + 1) / 2)


def test_pisa_says_that_several_objects_are_averaged(data, tmp_path):
    true = throw(0)
    true.masks = torch.cat([true.masks, true.masks.flip(-1)], dim=1)
    write_rows(tmp_path / "metadata.jsonl", [true.write(tmp_path, "0", arrays="small")])
    result = run("pisa", Inputs([str(tmp_path)], reference=str(tmp_path), statistics=STATISTICS))
    assert any("of several objects" in note for note in result.notes)
    assert not any("of several objects" in note for note in run("pisa", inputs(data)).notes)


def test_without_truth_they_are_skipped(tmp_path):
    write_video(tmp_path / "a.mp4", throw(0).frames, FPS)
    for name in ("newtonbench", "pisa", "fidelity"):
        assert "no clip has a truth" in run(name, Inputs([str(tmp_path)])).skipped["all"]


@pytest.mark.parametrize(("trunk", "layers"), [("alex", 5), ("vgg", 13)])
def test_lpips_reads_weights_and_follows_its_formula(tmp_path, trunk, layers):
    random = LPIPS(trunk)
    state = {k: v for k, v in random.state_dict().items() if k.startswith("features")}
    assert sum(k.endswith("weight") for k in state) == layers
    state |= {f"lin{k}.model.1.weight": torch.rand_like(w) for k, w in enumerate(random.weights)}
    save_file(state, tmp_path / "w.safetensors")
    model = LPIPS.read(tmp_path / "w.safetensors", trunk)
    one, two = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    assert model(one, one).tolist() == [0, 0]
    assert torch.equal(model(one, two), model(two, one))
    x, y = (
        (2 * f - 1 - torch.tensor([-0.03, -0.088, -0.188]).view(3, 1, 1)) / torch.tensor([0.458, 0.448, 0.45]).view(3, 1, 1)
        for f in (one, two)
    )
    first = 2 if trunk == "alex" else 4
    f, g = (model.features[:first](x), model.features[:first](y))
    stage = (
        (state["lin0.model.1.weight"] * (f / f.norm(dim=1, keepdim=True) - g / g.norm(dim=1, keepdim=True)) ** 2)
        .sum(1)
        .mean((1, 2))
    )
    for weight in model.weights[1:]:
        weight.zero_()
    assert torch.allclose(model(one, two), stage, rtol=1e-5)
    del state["lin4.model.1.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"does not hold weights\.4"):
        LPIPS.read(tmp_path / "part.safetensors", trunk)


def test_nan_is_counted_not_dropped():
    from visviva.eval.benchmarks.result import ClipRow, mean_score

    rows = [ClipRow("a", "a", {"x": 1.0}), ClipRow("b", "b", {"x": math.nan}), ClipRow("c", "c", {}, failure="broken")]
    score = mean_score("x", rows, "1", lower_is_better=True)
    assert (score.value, score.used, score.asked) == (1, 1, 3)
    assert math.isnan(mean_score("y", rows, "1", lower_is_better=True).value)


def test_the_bootstrap_of_any_statistic_is_that_of_the_mean_for_a_mean():
    from visviva.eval.statistics import bootstrap, bootstrap_mean

    values, scenes = np.random.default_rng(0).normal(size=40), [k // 2 for k in range(40)]
    mean = bootstrap_mean(values, scenes, resamples=300)
    same = bootstrap(lambda w: w @ values / w.sum(1), 40, scenes, resamples=300)
    assert (same.value, same.low, same.high, same.clusters) == pytest.approx((mean.value, mean.low, mean.high, 20))
    ratio = bootstrap(lambda w: (w @ (2 * values)) / (w @ values), 40, scenes, resamples=300)
    assert (ratio.low, ratio.high) == pytest.approx((2, 2))
    with pytest.raises(InputError, match="no sample"):
        bootstrap(lambda w: w.sum(1), 0)
