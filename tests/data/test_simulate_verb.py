"""`visviva simulate` as a pipeline: a folder of clips, the same for any number of processes, continued where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visviva.configs.schema import load
from visviva.configs.simulate import SimulateRecipe
from visviva.data.dataset import ClipDataset
from visviva.data.scenes import PRIMITIVES
from visviva.errors import InputError
from visviva.pipelines.simulate import run


def recipe(folder: Path, **changes: object) -> SimulateRecipe:
    settings = {"output": str(folder), "clips": 8, "seed": 4, "height": 32, "width": 32, "frames": 9, "workers": 1, "batch": 4}
    return SimulateRecipe(**(settings | changes))


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and "manifest" not in p.name
    }


def test_a_folder_of_clips(tmp_path: Path) -> None:
    folder = run(recipe(tmp_path / "set"))
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [r["file_name"] for r in rows] == [f"clips/{i:06d}.mp4" for i in range(8)]
    assert [r["primitive"] for r in rows] == [PRIMITIVES[i % 5] for i in range(8)]
    assert all(r["split"] == "id" and r["fps"] == 32.0 and "id" not in r for r in rows)
    dataset = ClipDataset(folder, where={"primitive": "ramp_up"})
    assert len(dataset) == 1
    assert dataset[0].flow.shape == (8, 2, 32, 32)
    assert dataset[0].meta["speed"] == rows[4]["speed"]


def test_neither_batch_nor_interruption_changes_a_byte(tmp_path: Path) -> None:
    whole = content(run(recipe(tmp_path / "whole")))
    run(recipe(tmp_path / "parts", clips=3))
    (tmp_path / "parts" / "metadata.jsonl").unlink()  # as if killed before the end
    assert content(run(recipe(tmp_path / "parts", batch=64))) == whole


@pytest.mark.slow
def test_two_processes_write_the_same_files(tmp_path: Path) -> None:
    assert content(run(recipe(tmp_path / "two", workers=2))) == content(run(recipe(tmp_path / "one")))


def test_a_finished_folder_is_left_alone(tmp_path: Path) -> None:
    folder = run(recipe(tmp_path / "set", clips=2))
    times = {p: p.stat().st_mtime_ns for p in (folder / "clips").iterdir()}
    run(recipe(tmp_path / "set", clips=2))
    assert {p: p.stat().st_mtime_ns for p in (folder / "clips").iterdir()} == times


def test_other_settings_do_not_mix_into_a_folder(tmp_path: Path) -> None:
    run(recipe(tmp_path / "set", clips=1))
    with pytest.raises(InputError, match="seed"):
        run(recipe(tmp_path / "set", clips=2, seed=5))


def test_an_output_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be made a folder"):
        run(recipe(tmp_path / "file" / "set"))


@pytest.mark.parametrize("name", ["simulate-primitives", "simulate-ood", "simulate-photoreal"])
def test_shipped_recipes_are_valid(name: str) -> None:
    assert load(SimulateRecipe, name).clips > 0


@pytest.mark.parametrize(
    ("change", "says"), [({"clips": 0}, "clips"), ({"height": 33}, "height"), ({"primitives": ["fall"]}, "primitives")]
)
def test_bad_settings_name_the_field(change: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load(SimulateRecipe, None, **change)
