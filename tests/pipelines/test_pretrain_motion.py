"""Training of the motion model: windows at any rate and speed, HumanML3D folders, resuming, and what is written."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from visviva.configs.pretrain import PretrainRecipe
from visviva.data.motions.folder import facing
from visviva.data.motions.humanml3d import features, joints_of
from visviva.errors import InputError
from visviva.pipelines.motion.pipeline import load
from visviva.pipelines.pretrain import run
from visviva.pipelines.pretrain.motion import column_weights
from visviva.pipelines.pretrain.motions import humanml3d, packed, simulated, windows

SMALL = {
    "clips": 16, "steps": 6, "frames": 16, "width": 16, "layers": 1, "templates": 8, "hidden": 32, "batch_size": 4,
    "seconds": 1.5, "actions": ["walk", "jump"], "warmup": 2,
}  # fmt: skip


def recipe(out, **changes):
    return PretrainRecipe(
        model="motion",
        out=str(out),
        device="cpu",
        precision="fp32",
        validate_every=3,
        save_every=3,
        motion={**SMALL, **changes},
    )


def swaying(fps, seconds=3.0, size=0.05):
    """A body that walks along a gentle curve while its joints sway; smooth at any rate; y up."""
    t = torch.arange(round(fps * seconds), dtype=torch.float64)[:, None, None] / fps
    g = torch.Generator().manual_seed(3)
    own = torch.randn(22, 3, generator=g, dtype=torch.float64) * 0.3 + torch.tensor([0.0, 1.0, 0.0])
    own[1], own[2], own[16], own[17] = torch.eye(4, 3, dtype=torch.float64) * 0 + torch.tensor(
        [[0.1, 0.9, 0.0], [-0.1, 0.9, 0.0], [0.2, 1.4, 0.0], [-0.2, 1.4, 0.0]], dtype=torch.float64
    )
    sway = size * torch.sin(3 * t + torch.arange(22)[:, None])
    return (own + sway + torch.tensor([0.1, 0.0, 0.9], dtype=torch.float64) * t).float()


def one(clip, fps):
    return packed([clip], fps, [["a person sways"]])


def test_features_do_not_depend_on_the_frame_rate():
    slow, fast = (features(swaying(fps)[None], fps)[0] for fps in (20.0, 40.0))
    assert torch.allclose(slow[:, 4:193], fast[::2][: len(slow), 4:193], atol=2e-2)
    assert torch.allclose(slow[:-1, 1:3], fast[::2][: len(slow) - 1, 1:3], atol=2e-3)  # per 1/20 s in both
    joints = swaying(30.0)[None]
    again = joints_of(features(facing(joints), 30.0), 30.0)
    assert torch.allclose(again, facing(joints)[:, :-1], atol=1e-4)


def test_windows_interpolate_and_end_with_their_clip():
    motions, rng = one(swaying(40.0, size=0.0), 40.0), torch.Generator().manual_seed(0)
    index = torch.zeros(1, dtype=torch.long)
    usual = windows(motions, index, 20, 16.0, rng)
    assert (usual.lengths.tolist(), usual.fps.tolist(), usual.texts) == ([20], [16.0], ["a person sways"])
    slow = windows(motions, index, 20, 8.0, rng)
    one_, two = (joints_of(w.features, fps)[0] for w, fps in ((usual, 16.0), (slow, 8.0)))
    way = [float((x[-1, 0] - x[0, 0]).norm()) for x in (one_, two)]
    assert way[1] / way[0] == pytest.approx(2.0, rel=1e-3)  # twice as long at the same speed
    longer = windows(motions, index, 60, 16.0, rng)
    assert longer.lengths.tolist() == [int(119 / 40 * 16)]


def test_every_part_counts_the_same():
    weight = column_weights(0.5)
    assert float(weight.sum()) == pytest.approx(1.0)
    assert float(weight[:4].sum() + weight[193:196].sum()) == pytest.approx(1 / 7)
    assert float(weight[67]) == pytest.approx(0.5 * float(weight[4]), rel=1e-4)


@pytest.fixture
def folder(tmp_path):
    """A folder in HumanML3D's format."""
    root = tmp_path / "hml"
    for name in ("new_joint_vecs", "texts"):
        (root / name).mkdir(parents=True)
    for k in range(4):
        np.save(root / "new_joint_vecs" / f"{k:06d}.npy", features(swaying(20.0, 2.0 + 0.3 * k)[None])[0].numpy())
        text = "a man sways#a/DET man/NOUN#0.0#0.0\n" + ("a part#x#0.5#1.0\n" if k else "")
        (root / "texts" / f"{k:06d}.txt").write_text(text)
    (root / "train.txt").write_text("000000\n000001\n000002\n")
    (root / "val.txt").write_text("000003\nmissing\n")
    return root


def test_a_humanml3d_folder_is_read(folder):
    found = humanml3d(folder, "train")
    assert (len(found), found.fps, found.captions) == (3, 20.0, [["a man sways"]] * 3)
    assert found.lengths.tolist() == [39, 45, 51]
    with pytest.raises(InputError, match=r"test\.txt"):
        humanml3d(folder, "test")
    assert len(humanml3d(folder, "train", 2)) == 2


def test_damaged_clips_of_a_folder_are_refused_and_short_ones_left_out(folder):
    vectors = folder / "new_joint_vecs"
    np.save(vectors / "000000.npy", np.load(vectors / "000000.npy")[:20])
    assert humanml3d(folder, "train").lengths.tolist() == [45, 51]
    (folder / "texts" / "000003.txt").write_text("a part#x#0.5#1.0\n")
    with pytest.raises(InputError, match="a text about all of it"):
        humanml3d(folder, "val")
    np.save(vectors / "000001.npy", np.full((45, 263), np.nan, np.float32))
    with pytest.raises(InputError, match="not finite"):
        humanml3d(folder, "train")
    (vectors / "000001.npy").write_bytes(b"broken")
    with pytest.raises(InputError, match="not a readable"):
        humanml3d(folder, "train")


def test_drawn_actions_are_kept_and_leave_no_half_files(tmp_path):
    one, two = (simulated(["walk"], 2, 0, 0.6, tmp_path) for _ in range(2))
    assert one.fingerprint == two.fingerprint
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_training_on_a_folder_writes_a_model(folder, tmp_path):
    model = run(recipe(tmp_path / "out", data=str(folder), frames=12))
    found = load(model)
    assert found(["a man sways"], seconds=1.0, steps=2).joints.isfinite().all()
    card = (model / "README.md").read_text()
    assert "that of its data" in card
    assert (model / "curves.png").stat().st_size > 1000
    assert {line.split("  ")[1] for line in (model / "SHA256SUMS").read_text().splitlines()} == {
        p.relative_to(model).as_posix() for p in model.rglob("*") if p.is_file() and p.name != "SHA256SUMS"
    }


def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path):
    whole = run(recipe(tmp_path / "whole"))
    half = tmp_path / "half"
    run(PretrainRecipe(**{**recipe(half).model_dump(), "stop_after": 1e-3}))
    assert [p.name for p in (half / "checkpoints-motion").iterdir()] == ["step-00000001"]
    again = run(recipe(half))
    one_, two = ((path / "transformer/diffusion_pytorch_model.safetensors").read_bytes() for path in (whole, again))
    assert one_ == two
    rows = [json.loads(line) for line in (half / "motion.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert rows[-1]["validation"] < 2.0
