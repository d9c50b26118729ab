"""The clips of an evaluation: rows that say nothing in a field, whole paths, and which truth a clip gets."""

from __future__ import annotations

import pytest
import torch

from visviva.data.clip import Clip
from visviva.data.dataset import write_rows
from visviva.data.video import write_video
from visviva.eval.collection import collect


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", torch.rand(3, 3, 16, 16), 8.0)
    return tmp_path


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_field_that_is_null_or_empty_says_nothing(folder, nothing):
    fields = ("id", "scene", "primitive", "split", "caption")
    write_rows(folder / "metadata.jsonl", [{"file_name": f"{n}.mp4", **dict.fromkeys(fields, nothing)} for n in ("a", "b")])
    items = collect([str(folder)])
    assert [item.key for item in items] == ["a", "b"]
    assert [item.labels["scene"] for item in items] == ["a", "b"]
    assert all(item.labels[f] == "" for item in items for f in ("primitive", "split", "caption"))


def test_scenes_that_are_null_are_not_one_scene(folder):
    """Every clip got the first row's truth before: all scenes were called 'None'."""
    masks = {"a": torch.zeros(3, 1, 16, 16, dtype=torch.bool), "b": torch.ones(3, 1, 16, 16, dtype=torch.bool)}
    true = [Clip(torch.rand(3, 3, 16, 16), 8.0, masks=m).write(folder / "true", n, arrays="small") for n, m in masks.items()]
    write_rows(folder / "true/metadata.jsonl", [row | {"scene": None} for row in true])
    write_rows(folder / "metadata.jsonl", [{"file_name": f"{n}.mp4", "scene": None} for n in ("a", "b")])
    items = collect([str(folder)], reference=str(folder / "true"))
    assert [bool(item.true().masks.any()) for item in items] == [False, True]


def test_scene_zero_is_a_scene(folder):
    write_rows(folder / "metadata.jsonl", [{"file_name": "a.mp4", "scene": 0, "id": 0}])
    assert collect([str(folder)])[0].labels["scene"] == "0"


def test_a_clip_named_by_its_whole_path_may_name_its_source(folder):
    true = Clip(torch.rand(3, 3, 16, 16), 8.0, masks=torch.ones(3, 1, 16, 16, dtype=torch.bool))
    true.write(folder / "true", "0", arrays="small")
    source = str(next((folder / "true").rglob("0.mp4")))
    write_rows(folder / "list/metadata.jsonl", [{"file_name": str(folder / "a.mp4"), "source": source}])
    assert bool(collect([str(folder / "list")])[0].true().masks.all())
