"""``visviva motion evaluate``: files, folders, references, failures with reasons, what is written and said."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from visviva.cli import main
from visviva.configs.motion import MotionRecipe
from visviva.data.motions.amass import NAMES, OFFSETS, PARENTS
from visviva.data.motions.arrays import write_npz
from visviva.data.motions.axes import upright
from visviva.data.motions.bvh import about, write_bvh
from visviva.data.motions.motion import HumanMotion, forward_kinematics
from visviva.errors import InputError
from visviva.eval.motion.measure import measure
from visviva.pipelines import motion
from visviva.pipelines.motion.evaluate import missing, stems


def walker(frames=40, speed=1.0):
    """A person whose legs swing while the body moves ahead; z up."""
    t = torch.arange(frames) / 20.0
    turns = torch.eye(3).expand(frames, 24, 3, 3).clone()
    turns[:, 1], turns[:, 2] = about(0, 0.4 * torch.sin(6 * t)), about(0, -0.4 * torch.sin(6 * t))
    offsets = OFFSETS.expand(frames, -1, -1).clone()
    offsets[:, 0] = torch.stack((torch.zeros(frames), torch.full((frames,), 0.95), speed * t), -1)
    turns[:, 0] = upright("y")
    offsets[:, 0] = offsets[:, 0] @ upright("y").T
    return HumanMotion(forward_kinematics(turns, offsets, PARENTS)[0], NAMES, PARENTS, 20.0, rotations=turns, rest=OFFSETS)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "motions"
    write_npz(folder / "walk.npz", walker())
    write_bvh(folder / "march.bvh", walker(speed=0.5))
    np.save(folder / "points.npy", np.zeros((5, 22, 3)))
    return folder


def test_a_folder_is_measured_and_what_fails_keeps_its_place(files, tmp_path, capsys):
    assert main(["motion", "evaluate", str(files), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["counts"] == {"files": 3, "measured": 2, "failed": 1}
    march, points, walk = content["motions"]
    assert (points["measured"], "one point" in points["reason"]) == (False, True)
    assert walk["scores"]["speed"]["value"] == pytest.approx(1.0, rel=0.2)
    assert walk["scores"]["sliding"]["unit"] == "m/s"
    assert march["notes"][0].startswith("units: m")
    assert "not measured" in said
    assert said.strip().splitlines()[-1] == "1 of 3 files could not be measured; the reasons are above"
    assert "walk.npz" in said
    for name in ("ground peak", "torque peak", "flight spin", "el violation (its floor)", "el linear", "phys err"):
        assert name in said, name
    violation, floor = (walk["scores"][key]["value"] for key in ("el_violation", "el_floor"))
    assert f"{violation:.3g} ({floor:.3g})" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "one point" in page
    assert {p.name for p in (tmp_path / "out" / "plots").iterdir()} >= {"walk.npz-poses.png", "walk.npz-curves.png"}


def test_errors_against_a_reference(files, tmp_path):
    shifted = walker()
    true = write_npz(
        tmp_path / "true" / "walk.npz", shifted.noted(positions=shifted.positions + torch.tensor([0.0, 0.03, 0.04]))
    )
    folder = motion.run(MotionRecipe(files=[str(files / "walk.npz")], reference=str(true), output=str(tmp_path / "a")))
    scores = json.loads((folder / "metrics.json").read_text())["motions"][0]["scores"]
    assert scores["mpjpe"]["value"] == pytest.approx(50, rel=1e-3)
    assert scores["pa_mpjpe"]["value"] < 1e-2
    by_name = MotionRecipe(files=[str(files / "walk.npz")], reference=str(true.parent), output=str(tmp_path / "b"))
    again = json.loads((motion.run(by_name) / "metrics.json").read_text())["motions"][0]["scores"]
    assert again["mpjpe"] == scores["mpjpe"]


def test_a_reference_of_another_length_is_said(files, tmp_path):
    true = write_npz(tmp_path / "true.npz", walker().cut(0, 30))
    folder = motion.run(MotionRecipe(files=[str(files / "walk.npz")], reference=str(true), output=str(tmp_path / "a")))
    notes = json.loads((folder / "metrics.json").read_text())["motions"][0]["notes"]
    said = f"reference: of another length; the first 30 of {len(walker())} and 30 frames are compared"
    assert said in notes


def test_settings_reach_the_reader(files, tmp_path):
    np.savez(tmp_path / "mm.npz", positions=1000 * walker().positions.numpy(), fps=20.0, names=NAMES, parents=PARENTS)
    recipe = MotionRecipe(
        files=[str(tmp_path / "mm.npz")], units="mm", up="z", frame_rate=40.0, floor=0.0, output=str(tmp_path / "a")
    )
    row = json.loads((motion.run(recipe) / "metrics.json").read_text())["motions"][0]
    assert (row["fps"], row["floor"]) == (40.0, 0.0)
    assert {"units: mm, as given", "up axis: z, as given", "floor: at 0 m, as given"} <= set(row["notes"])


@pytest.mark.parametrize(
    ("files", "said"),
    [([], "name files or folders"), (["none.bvh"], "no such file"), (["empty"], "holds no motion file")],
)
def test_nothing_to_measure_is_one_sentence(files, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["motion", "evaluate", *files]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("action", ["evaluate", "reestimate", "render"])
def test_the_remedy_names_the_action(action, capsys):
    assert main(["motion", action]) == 2
    assert f"visviva motion {action} walk.bvh" in capsys.readouterr().err


def test_a_floor_that_is_nowhere_is_refused(files, tmp_path, capsys):
    assert main(["motion", "evaluate", str(files), "--floor", "nan", "--out", str(tmp_path / "out")]) == 2
    assert "floor" in capsys.readouterr().err
    with pytest.raises(InputError, match="the floor is at nan m"):
        measure(walker(), floor=math.nan)  # nothing would sink or float


@pytest.mark.parametrize("action", ["evaluate", "reestimate", "render"])
def test_all_failing_is_an_error_with_every_reason(action, tmp_path):
    np.save(tmp_path / "a.npy", np.full((5, 22, 3), math.nan))
    np.save(tmp_path / "b.npy", np.zeros((5, 22, 3)))
    with pytest.raises(InputError) as caught:
        motion.run(MotionRecipe(action=action, files=[str(tmp_path)], output=str(tmp_path / "out")))
    head, one, two = str(caught.value).splitlines()
    assert head.startswith("none of 2 files could be")
    assert "a.npy" in one
    assert "not finite" in one
    assert "b.npy" in two
    assert "one point" in two


def test_dashes_have_their_reasons(tmp_path, capsys):
    motion.run(MotionRecipe(files=[str(write_npz(tmp_path / "walk.npz", walker(24)))], output=str(tmp_path / "out")))
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("walk.npz: no "))
    assert said == (
        "walk.npz: no smoothness: 24 frames; log dimensionless jerk needs 31; "
        "no flight gravity, flight spin: no flight of 0.35 s (7 frames at 20 frames/s)"
    )


def test_nothing_is_said_to_be_missing_where_nothing_is():
    measured = measure(walker())
    assert missing(measured, ["jerk", "smoothness"]) == ""


def test_plots_and_report_show_how_far_they_are(tmp_path, capsys):
    motion.run(MotionRecipe(files=[str(write_npz(tmp_path / "walk.npz", walker()))], output=str(tmp_path / "out")))
    said = capsys.readouterr().err
    assert "plots: 100%" in said
    assert "report: 100%" in said


def test_what_is_written_of_each_file_has_a_name_of_its_own():
    names = ["a/walk.npz", "a/walk.bvh", "b/run.npz", "c/run.npz", "b-run.npz", "jump.npz"]
    assert stems([Path(name) for name in names]) == ["walk-npz", "walk-bvh", "b-run-npz", "c-run", "b-run-npz-2", "jump"]
