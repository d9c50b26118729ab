"""A clip on disk: a video and arrays beside it; everything comes back, equal clips give equal bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from visviva.data.clip import STATES, TRUTH, Clip
from visviva.data.video import write_video
from visviva.errors import InputError


def made(t: int = 5, n: int = 2, h: int = 24, w: int = 30) -> Clip:
    g = torch.Generator().manual_seed(0)
    shapes = {"position": 3, "velocity": 3, "quaternion": 4, "angular_velocity": 3}
    return Clip(
        frames=torch.rand(t, 3, h, w, generator=g) * 0.1 + 0.4,
        fps=32.0,
        caption="a ball falls",
        masks=torch.rand(t, n, h, w, generator=g) > 0.5,
        flow=torch.randn(t - 1, 2, h, w, generator=g),
        flow_valid=torch.rand(t - 1, h, w, generator=g) > 0.5,
        depth=torch.rand(t, h, w, generator=g) + 4,
        trajectory=torch.randn(t, n, 2, generator=g),
        visible=torch.ones(t, n, dtype=torch.bool),
        states={name: torch.randn(t, n, k, generator=g) for name, k in shapes.items()},
        metres_per_pixel=torch.tensor([0.04, 0.04]),
        contact=torch.tensor([False, False, True, True, False]),
        contact_times=(0.07,),
        meta={"primitive": "free_fall", "split": "id", "view": 2.4},
    )


def test_all_truth_survives_the_disk(tmp_path: Path) -> None:
    clip = made()
    row = clip.write(tmp_path, "clips/000")
    again = Clip.read(tmp_path / row["file_name"])
    for name in TRUTH:
        kept, stored = getattr(clip, name), getattr(again, name)
        assert stored.dtype == kept.dtype, name
        assert torch.allclose(stored.float(), kept.float(), atol=3e-3 if name == "depth" else 0), name
    assert set(again.states) == set(STATES)
    assert all(torch.equal(again.states[k], clip.states[k]) for k in STATES)
    assert (again.fps, again.caption, again.meta, again.contact_times) == (32.0, clip.caption, clip.meta, clip.contact_times)
    assert row["arrays"] == "clips/000.npz"
    assert row["primitive"] == "free_fall"
    assert (tmp_path / row["arrays"]).is_file()


def test_small_arrays_leave_flow_and_depth_out(tmp_path: Path) -> None:
    made().write(tmp_path, "a", arrays="small")
    again = Clip.read(tmp_path / "a.mp4")
    assert again.flow is None
    assert again.depth is None
    assert again.known() == ["masks", "trajectory", "visible", "metres_per_pixel", "contact"]


def test_no_arrays_leaves_a_plain_video(tmp_path: Path) -> None:
    row = made().write(tmp_path, "a", arrays="none")
    assert "arrays" not in row
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    (tmp_path / "a.txt").write_text("a ball falls\n")
    again = Clip.read(tmp_path / "a.mp4")
    assert again.known() == []
    assert again.caption == "a ball falls"


def test_equal_clips_give_equal_bytes(tmp_path: Path) -> None:
    made().write(tmp_path, "a")
    made().write(tmp_path, "b")
    for suffix in (".mp4", ".npz"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_arrays_hold_no_pickle(tmp_path: Path) -> None:
    made().write(tmp_path, "a")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored.files)
        assert json.loads(str(stored["about"]))["meta"]["primitive"] == "free_fall"


def test_a_shortened_read_shortens_the_truth(tmp_path: Path) -> None:
    made().write(tmp_path, "a")
    again = Clip.read(tmp_path / "a.mp4", max_frames=3)
    assert len(again.masks) == len(again.trajectory) == len(again.contact) == len(again.states["position"]) == 3
    assert len(again.flow) == len(again.flow_valid) == 2
    assert len(again.metres_per_pixel) == 2


def damage(path: Path, kind: str) -> None:
    if kind == "garbage":
        path.write_bytes(b"not a zip file at all")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "foreign":
        np.savez(path, something=np.zeros(3))
    else:
        with np.load(path, allow_pickle=False) as stored:
            content = dict(stored)
        about = json.loads(str(content["about"]))
        content["about"] = np.array(json.dumps(about | {"format": 99}))
        np.savez(path, **content)


@pytest.mark.parametrize(
    ("kind", "says"),
    [("garbage", "not a readable"), ("cut", "not a readable"), ("foreign", "not a readable"), ("newer", "newer version")],
)
def test_damaged_arrays_get_one_sentence(tmp_path: Path, kind: str, says: str) -> None:
    made().write(tmp_path, "a")
    damage(tmp_path / "a.npz", kind)
    with pytest.raises(InputError, match=says) as caught:
        Clip.read(tmp_path / "a.mp4")
    assert str(tmp_path / "a.npz") in str(caught.value)


def test_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    made().write(tmp_path, "a")
    other = made(h=32, w=40)
    other.write(tmp_path, "b")
    (tmp_path / "b.npz").replace(tmp_path / "a.npz")
    with pytest.raises(InputError, match="masks are"):
        Clip.read(tmp_path / "a.mp4")


def test_an_unknown_choice_of_arrays_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'all', 'small' or 'none'"):
        made().write(tmp_path, "a", arrays="some")


def rewrite(path: Path, drop: tuple[str, ...] = (), about: dict | None = None, **arrays: np.ndarray) -> None:
    with np.load(path, allow_pickle=False) as stored:
        content = {k: v for k, v in stored.items() if k not in drop}
    notes = json.loads(str(content["about"])) | (about or {})
    content["about"] = np.array(json.dumps({k: v for k, v in notes.items() if v is not None}))
    np.savez(path, **(content | arrays))


def test_truth_of_another_length_is_refused(tmp_path: Path) -> None:
    made(t=5).write(tmp_path, "a")
    write_video(tmp_path / "a.mp4", made(t=7).frames, 32.0)
    for most in (None, 7, 6):
        with pytest.raises(InputError, match=r"a\.npz: the ground truth has 5 frames and the video [67]"):
            Clip.read(tmp_path / "a.mp4", most)
    write_video(tmp_path / "a.mp4", made(t=4).frames, 32.0)
    for most in (None, 9):
        with pytest.raises(InputError, match="has 5 frames and the video 4"):
            Clip.read(tmp_path / "a.mp4", most)
    assert len(Clip.read(tmp_path / "a.mp4", 3).masks) == 3


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"frames": np.zeros((5, 3, 24, 30), np.float32)}, "unknown array 'frames'"),
        ({"state_mass": np.zeros((5, 2), np.float32)}, "unknown array 'state_mass'"),
        ({"trajectory": np.zeros((4, 2, 2), np.float32)}, r"trajectory has shape \(4, 2, 2\), but T is 5 in masks"),
        ({"flow": np.zeros((5, 2, 24, 30), np.float32)}, r"flow has shape .*, but T is 5"),
        ({"visible": np.zeros((5, 3), bool)}, "but N is 2 in masks"),
        ({"contact": np.zeros((5, 1), bool)}, r"contact has shape \(5, 1\), expected \(T\)"),
        ({"trajectory": np.zeros((5, 2, 3), np.float32)}, "but 2 is expected"),
        ({"masks": np.zeros((5, 2, 24, 9), np.uint8)}, "not packed for images 30 pixels wide"),
        ({"contact": np.array(["a"] * 5)}, "contact holds <U1, not numbers"),
    ],
)
def test_arrays_that_contradict_the_clip_are_refused(tmp_path: Path, arrays: dict, words: str) -> None:
    made().write(tmp_path, "a")
    rewrite(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=words):
        Clip.read(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"fps": None}, "lack or misstate fps"),
        ({"fps": "fast", "meta": 3}, "lack or misstate fps, meta"),
        ({"fps": 0}, "fps = 0"),
        ({"format": None}, "misstate format"),
    ],
)
def test_notes_that_are_missing_or_wrong_are_named(tmp_path: Path, about: dict, words: str) -> None:
    made().write(tmp_path, "a")
    rewrite(tmp_path / "a.npz", about=about)
    with pytest.raises(InputError, match=words):
        Clip.read(tmp_path / "a.mp4")
