"""Training of the flow network: the scenes' flow is exact, augmentations keep it, runs resume to the same bits and learn."""

import json

import pytest
import torch
from posttrain_clips import falling
from safetensors.torch import load_file

from visviva.configs.posttrain import Probe
from visviva.configs.pretrain import FlowStage, PretrainRecipe
from visviva.data.clip import Clip
from visviva.data.dataset import write_rows
from visviva.errors import InputError
from visviva.models.probes.flow import FlowPyramid
from visviva.physics.kinematics import displaced
from visviva.pipelines.posttrain.verifier import probe_of
from visviva.pipelines.pretrain import flow, run
from visviva.pipelines.pretrain.flow_clips import ClipPairs
from visviva.pipelines.pretrain.flow_photo import blurred, compressed, photographed
from visviva.pipelines.pretrain.flow_scenes import Pair, bank, draw

LOOKS = bank(48, seed=0)


def scenes(count=8, side=48, seed=0):
    return draw(count, side, LOOKS, torch.Generator().manual_seed(seed))


def unexplained(pair):
    """Share of pixels whose colour the second frame does not show at the flow's target."""
    return float(((displaced(pair.second, pair.flow) - pair.first).abs().amax(1) > 0.06).float().mean())


@pytest.mark.parametrize("seed", range(4))
def test_the_flow_says_where_each_pixel_goes(seed):
    """But for what gets covered, leaves the picture, or lies on an edge."""
    pair = scenes(seed=seed).pair()
    assert unexplained(pair) < 0.12
    assert unexplained(Pair(pair.first, pair.second, -pair.flow)) > unexplained(pair)


def test_a_translated_background_flows_by_its_translation():
    drawn = scenes(4)
    moved = drawn.__class__(
        **{**vars(drawn), "pan": torch.tensor([2.5, -1.25]).expand(4, 1, 2), "zoom": torch.zeros(4, 1, 2, 2)}
    )
    only = moved.__class__(**{**vars(moved), "radius": torch.full_like(moved.radius, 1e-3)})
    wanted = torch.tensor([2.5, -1.25])[:, None, None].expand(4, 2, 48, 48)
    assert torch.allclose(only.pair().flow, wanted, atol=1e-4)


def test_rotation_about_a_centre_flows_in_circles():
    drawn = scenes(2)
    count = drawn.looks.shape[1]
    angle = torch.tensor(0.1)
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]) - torch.eye(2)
    still = {"pan": torch.zeros(2, 1, 2), "zoom": torch.zeros(2, 1, 2, 2), "shift": torch.zeros(2, count, 2)}
    spun = drawn.__class__(**{**vars(drawn), **still, "growth": turn.expand(2, count, 2, 2)})
    top, found = spun.frame(0.0)[1], spun.pair().flow
    at = torch.stack(torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="xy"))[None]
    centre = torch.gather(spun.centre, 1, top.flatten(1)[..., None].expand(-1, -1, 2)).mT.reshape(2, 2, 48, 48)
    assert torch.allclose(found, torch.einsum("ij,bjhw->bihw", turn, at - centre), atol=1e-4)


def test_scenes_and_batches_are_reproducible_by_their_key():
    stage = FlowStage(side=32, batch_size=4, large=0.5, together=2)
    one, two = (flow.batches(stage, LOOKS, None, flow.generator(0, "flow", 7)) for _ in range(2))
    other = flow.batches(stage, LOOKS, None, flow.generator(0, "flow", 8))
    assert len(one) == 2
    assert not torch.equal(one[0].first, one[1].first)
    for first, second, third in zip(one, two, other, strict=True):
        assert torch.equal(first.first, second.first)
        assert torch.equal(first.flow, second.flow)
        assert first.first.shape != third.first.shape or not torch.equal(first.first, third.first)


def test_photographs_are_eight_bit_pictures_of_the_same_scene():
    pair = scenes().pair()
    photo = photographed(pair, torch.Generator().manual_seed(1))
    for image in (photo.first, photo.second):
        assert torch.allclose(image * 255, (image * 255).round(), atol=1e-3)
        assert float(image.min()) >= 0
        assert float(image.max()) <= 1
    assert torch.equal(photo.flow, pair.flow)
    together = torch.stack([pair.first.flatten(), photo.first.flatten()])
    assert float(torch.corrcoef(together)[0, 1]) > 0.8


def test_blur_and_compression_have_their_closed_forms():
    frames = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(compressed(frames, torch.tensor([1e-6, 1e-6])), frames, atol=1e-4)
    coarse = compressed(frames, torch.tensor([1e3, 1e3]))
    assert float(coarse.abs().max()) == 0
    assert torch.allclose(blurred(frames, torch.zeros(2)), frames, atol=1e-6)
    constant = torch.full_like(frames, 0.4)
    assert torch.allclose(blurred(constant, torch.tensor([1.0, 2.0])), constant, atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips of 48 px whose left half slides by (2, 1) px/frame and whose right half stands still, with that flow."""
    path, rows = tmp_path_factory.mktemp("clips"), []
    for index in range(2):
        wide = torch.rand(3, 60, 60, generator=torch.Generator().manual_seed(index))
        wide = torch.nn.functional.avg_pool2d(wide, 5, 1, 2)
        frames = torch.stack([wide[:, 8 - t : 56 - t, 8 - 2 * t : 56 - 2 * t] for t in range(4)])
        true = torch.tensor([2.0, 1.0])[:, None, None].expand(3, 2, 48, 48).contiguous()
        clip = Clip(frames, 16.0, caption="a sliding wall", flow=true, flow_valid=torch.ones(3, 48, 48, dtype=torch.bool))
        rows.append(clip.write(path / "clips", f"{index:06d}", crf=0))
    write_rows(path / "metadata.jsonl", [{**row, "file_name": f"clips/{row['file_name']}"} for row in rows])
    return path


def test_mirrored_and_transposed_crops_keep_their_flow(folder):
    clips = ClipPairs([str(folder)])
    pair = clips.draw(64, 32, torch.Generator().manual_seed(0))
    assert pair.first.shape == (64, 3, 32, 32)
    inner = (..., slice(4, -4), slice(4, -4))
    assert float((displaced(pair.second, pair.flow) - pair.first)[inner].abs().mean()) < 0.02
    assert {tuple(v) for v in pair.flow[:, :, 0, 0].tolist()} == {
        (x, y) for a, b in ((2.0, 1.0), (1.0, 2.0)) for x in (a, -a) for y in (b, -b)
    }


def test_clips_without_flow_and_crops_that_do_not_fit_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="no clip is 64 pixels large"):
        ClipPairs([str(folder)]).draw(1, 64, torch.Generator())
    row = falling(0).write(tmp_path / "clips", "000000", arrays="small")
    write_rows(tmp_path / "metadata.jsonl", [{**row, "file_name": f"clips/{row['file_name']}"}])
    with pytest.raises(InputError, match="no optical flow"):
        ClipPairs([str(tmp_path)])


def recipe(out, folder, **changes):
    settings = {"steps": 6, "batch_size": 2, "side": 32, "warmup": 2, "large": 0.3, "clips": [str(folder)], "simulated": 0.5}
    stage = FlowStage(**{**settings, **changes})
    return PretrainRecipe(
        model="flow", out=str(out), flow=stage, precision="fp32", device="cpu", save_every=2, validate_every=3
    )


def test_a_stopped_run_continues_to_the_same_bits_and_writes_its_card(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "BANK", 16)
    monkeypatch.setattr(flow, "HELD_OUT_BATCHES", 1)
    whole = run(recipe(tmp_path / "whole", folder))
    update, calls = flow._update, iter(range(100))

    def killed(*arguments):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return update(*arguments)

    monkeypatch.setattr(flow, "_update", killed)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(tmp_path / "killed", folder))
    monkeypatch.setattr(flow, "_update", update)
    again = run(recipe(tmp_path / "killed", folder))
    expected, found = load_file(whole / "weights.safetensors"), load_file(again / "weights.safetensors")
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert {p.name for p in whole.iterdir()} == {
        "weights.safetensors", "recipe.json", "flow.jsonl", "curves.png", "README.md", "SHA256SUMS",
    }  # fmt: skip
    last = json.loads((whole / "flow.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 6
    assert f"EPE {last['held_out_epe']:.3f} px" in (whole / "README.md").read_text()
    FlowPyramid().load_state_dict(found)


@pytest.mark.slow
def test_it_learns(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(flow, "HELD_OUT_BATCHES", 4)
    run(recipe(tmp_path, folder, steps=60, batch_size=8, clips=[], warmup=5, decay=0.5, ema=0.9))
    lines = [json.loads(line) for line in (tmp_path / "flow.jsonl").read_text().splitlines()]
    assert lines[-1]["held_out_epe"] < 0.85 * flow.epe(FlowPyramid(), flow.held_out_scenes(4))
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]


def test_recipes_name_the_shipped_network_and_raft():
    probe = probe_of(Probe(flow="flow_network"), False, None)
    assert probe.differentiable
    assert probe.name == "flow_network"
    with pytest.raises(InputError, match="path"):
        probe_of(Probe(flow="raft"), False, None)
    with pytest.raises(InputError, match="no such file"):
        probe_of(Probe(flow="raft", flow_options={"path": "absent.pth"}), False, None)
