"""Datasets on disk: metadata rows, filters, plain folders, JSON-lines lists, and Hugging Face ``datasets``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from visviva.data.clip import Clip
from visviva.data.dataset import ClipDataset, write_rows
from visviva.data.video import write_video
from visviva.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = []
    for i in range(4):
        clip = Clip(torch.full((3, 3, 32, 32), 0.2 * i), fps=16.0, caption=f"clip {i}", masks=torch.zeros(3, 1, 32, 32).bool())
        clip.meta = {"primitive": "free_fall" if i % 2 else "ramp_up", "split": "id", "scene": f"s{i}"}
        rows.append(clip.write(tmp_path, f"clips/{i:06d}"))
    write_rows(tmp_path / "metadata.jsonl", rows)
    return tmp_path


def test_a_folder_with_metadata(folder: Path) -> None:
    dataset = ClipDataset(folder)
    assert len(dataset) == 4
    clip = dataset[2]
    assert (clip.caption, clip.fps, clip.meta["scene"]) == ("clip 2", 16.0, "s2")
    assert clip.frames.mean() == pytest.approx(0.4, abs=0.02)
    assert clip.masks.shape == (3, 1, 32, 32)
    assert [c.caption for c in dataset[1:3]] == ["clip 1", "clip 2"]
    assert len(list(dataset)) == 4


def test_filter_and_limit(folder: Path) -> None:
    assert [r["scene"] for r in ClipDataset(folder, where={"primitive": "free_fall"}).rows] == ["s1", "s3"]
    assert len(ClipDataset(folder, limit=3)) == 3
    assert len(ClipDataset(folder, limit=1, where={"primitive": "free_fall"})) == 1


def test_fingerprint_follows_the_rows(folder: Path) -> None:
    whole = ClipDataset(folder)
    assert whole.fingerprint == ClipDataset(folder).fingerprint
    assert whole.fingerprint != ClipDataset(folder, limit=2).fingerprint


def test_plain_videos_with_captions_beside_them(tmp_path: Path) -> None:
    write_video(tmp_path / "b.mp4", torch.rand(3, 3, 32, 32), 10.0)
    write_video(tmp_path / "A.MP4", torch.rand(3, 3, 32, 32), 10.0)
    (tmp_path / "b.txt").write_text("a thing moves\n")
    dataset = ClipDataset(tmp_path)
    assert [r["file_name"] for r in dataset.rows] == ["A.MP4", "b.mp4"]
    assert [r["caption"] for r in dataset.rows] == ["", "a thing moves"]
    assert dataset[1].fps == pytest.approx(10.0)


@pytest.mark.parametrize("keys", [("video", "prompt"), ("file_name", "caption")])
def test_a_list_of_videos(tmp_path: Path, keys: tuple[str, str]) -> None:
    write_video(tmp_path / "own" / "b.mp4", torch.rand(3, 3, 32, 32), 10.0)
    (tmp_path / "list.jsonl").write_text(json.dumps({keys[0]: "own/b.mp4", keys[1]: "mine"}) + "\n\n")
    dataset = ClipDataset(tmp_path / "list.jsonl")
    assert dataset[0].caption == "mine"
    assert dataset[0].frames.shape == (3, 3, 32, 32)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the list is empty"),
        ("{broken\n", "line 1: not valid JSON"),
        ('{"file_name": "a.mp4"}\n{"x": 1}\n', "line 2: needs a field"),
        ("[1]\n", "line 1: needs a field"),
    ],
)
def test_a_bad_list_names_the_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "list.jsonl").write_text(text)
    with pytest.raises(InputError, match=says):
        ClipDataset(tmp_path / "list.jsonl")


def test_bad_sources_and_filters(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=r"neither metadata\.jsonl nor videos"):
        ClipDataset(empty)
    with pytest.raises(InputError, match="no dataset"):
        ClipDataset(empty / "nothing")
    with pytest.raises(InputError, match="no row has the field 'colour'"):
        ClipDataset(folder, where={"colour": "red"})
    with pytest.raises(InputError, match="no clip matches"):
        ClipDataset(folder, where={"split": "ood"})


def test_a_missing_clip_is_named(folder: Path) -> None:
    (folder / "clips" / "000001.mp4").unlink()
    with pytest.raises(InputError, match=r"000001\.mp4"):
        ClipDataset(folder)[1]


def test_hugging_face_datasets_loads_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hugging_face = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    cache = str(folder.parent / "cache")
    loaded = hugging_face.load_dataset("videofolder", data_dir=str(folder), split="train", cache_dir=cache)
    loaded = loaded.cast_column("video", hugging_face.Video(decode=False))
    assert len(loaded) == 4
    assert sorted(loaded["caption"]) == [f"clip {i}" for i in range(4)]
    row = next(r for r in loaded if r["caption"] == "clip 3")
    assert row["video"]["path"].endswith("000003.mp4")
    assert row["primitive"] == "free_fall"
    rows = hugging_face.load_dataset("json", data_files=str(folder / "metadata.jsonl"), split="train", cache_dir=cache)
    assert rows["file_name"][3] == "clips/000003.mp4"
