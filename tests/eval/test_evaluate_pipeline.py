"""``visviva evaluate``: data sets, generated folders, recordings, baselines, failures, bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_films import film, parabola

from visviva.cli import main
from visviva.configs.evaluate import EvaluateRecipe
from visviva.configs.schema import load
from visviva.data.clip import Clip
from visviva.data.dataset import write_rows
from visviva.data.video import write_video
from visviva.errors import InputError
from visviva.eval import collection, report
from visviva.eval.benchmarks.result import ClipRow, mean_score
from visviva.eval.pictures import pixels
from visviva.eval.settings import Settings
from visviva.pipelines import evaluate

COUNT, FPS, SIZE, RADIUS = 13, 24.0, (64, 64), 6.0


def throw(scene, gravity=180.0):
    """A clip with true masks of a ball thrown across a textured wall."""
    positions, _ = parabola(COUNT, FPS, (10, 50), (70 + 5 * scene, -130), gravity)
    frames = film(positions, SIZE, RADIUS, seed=scene)
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    masks = np.stack([np.hypot(xs - p[0], ys - p[1]) <= RADIUS for p in positions])
    meta = {"scene": f"s{scene}", "primitive": ("parabolic_throw", "free_fall")[scene % 2], "split": "id"}
    return Clip(frames.float() / 255, FPS, f"ball {scene}", masks=torch.from_numpy(masks)[:, None], meta=meta)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    write_rows(folder / "metadata.jsonl", [throw(s).write(folder, f"clips/{s:03d}", arrays="small") for s in range(4)])
    return folder


def generated(folder, truth, gravity, name="metadata.jsonl"):
    """A folder as ``visviva generate`` leaves it: no ground truth, rows that name scene and source."""
    rows = []
    for s in range(4):
        clip = throw(s, gravity)
        write_video(folder / f"clips/{s}.mp4", clip.frames, FPS)
        source = f"{truth}/clips/{s:03d}.mp4"
        rows.append(
            {"id": f"g{s}", "file_name": f"clips/{s}.mp4", "caption": clip.caption, "fps": FPS, "seed": 7 + s, "source": source}
        )
        rows[-1] |= clip.meta
    write_rows(folder / name, rows)
    return folder


@pytest.fixture(scope="module")
def after(tmp_path_factory, truth):
    return generated(tmp_path_factory.mktemp("after"), truth, 170.0)


def result(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_data_set_measures_the_floor_of_the_measurement(truth, tmp_path):
    folder = evaluate.run(EvaluateRecipe(clips=[str(truth)], output=str(tmp_path / "o"), shown=1, resamples=200))
    content = result(folder)
    assert content["counts"] | {"recordings": 0} == content["counts"]
    assert (content["counts"]["asked"], content["counts"]["failed"]) == (4, 0)
    overall = next(row for row in content["table"] if row["primitive"] == "all")
    assert overall["penalised"]["iou"]["value"] > 0.85
    assert overall["penalised"]["l2"]["value"] < 0.01
    assert content["about"]["recipe"]["resamples"] == 200
    assert (folder / "report.html").stat().st_size < 3e6
    assert len(list((folder / "plots").glob("*.png"))) == 1


def test_generated_clips_find_their_truth_and_are_compared_with_a_baseline(truth, after, tmp_path, capsys):
    before = generated(tmp_path / "before", truth, 90.0)
    shared = ["--shown", "1", "--resamples", "200", "--no-laws"]
    assert main(["evaluate", str(before), "--out", str(tmp_path / "b"), *shared]) == 0
    assert main(["evaluate", str(after), "--output", str(tmp_path / "a"), "--baseline", str(tmp_path / "b"), *shared]) == 0
    content = result(tmp_path / "a")
    assert {c["scene"] for c in content["clips"]} == {"s0", "s1", "s2", "s3"}
    assert all(c["seed"] is None for c in content["clips"])
    groups = content["comparison"]
    assert groups[0]["primitive"] == "all"
    assert groups[0]["improvement"]["value"] > 0.2
    assert set(groups[0]["metrics"]) == {"l2", "chamfer", "iou", "velocity_rmse", "acceleration_rmse"}
    assert "all primitives, ID" in capsys.readouterr().out
    assert "What changed from" in (tmp_path / "a" / "report.html").read_text()


def test_an_explicit_reference_is_paired_by_scene(truth, after, tmp_path):
    recipe = EvaluateRecipe(
        clips=[str(after)], reference=str(truth), output=str(tmp_path / "o"), laws=False, shown=0, resamples=200
    )
    own = EvaluateRecipe(clips=[str(after)], output=str(tmp_path / "p"), laws=False, shown=0, resamples=200)
    first, second = result(evaluate.run(recipe)), result(evaluate.run(own))
    assert first["clips"] == second["clips"]


def test_a_reference_without_the_scene_is_refused(after, tmp_path):
    write_rows(tmp_path / "metadata.jsonl", [throw(8).write(tmp_path, "clips/8", arrays="small")])
    recipe = EvaluateRecipe(clips=[str(after)], reference=str(tmp_path), output=str(tmp_path / "o"))
    with pytest.raises(InputError, match="scene 's0', which the reference"):
        evaluate.run(recipe)


def test_clips_whose_source_is_gone_are_an_error_not_recordings(truth, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(truth, moved)
    folder = generated(tmp_path / "g", moved, 170.0)
    shutil.rmtree(moved)
    recipe = EvaluateRecipe(clips=[str(folder)], output=str(tmp_path / "o"), laws=False, shown=0, resamples=200)
    with pytest.raises(
        InputError, match=r"clip 'g0' was generated from '.*moved/clips/000\.mp4'.*no longer there.*--reference"
    ):
        evaluate.run(recipe)
    assert not (tmp_path / "o").exists()
    content = result(evaluate.run(recipe.model_copy(update={"reference": str(truth)})))
    assert content["counts"]["scored"] == 4


def test_a_broken_clip_stays_in_the_denominator(truth, tmp_path):
    folder = generated(tmp_path / "g", truth, 170.0)
    (folder / "clips/1.mp4").write_bytes(b"not a video")
    (folder / "clips/2.mp4").unlink()
    content = result(
        evaluate.run(EvaluateRecipe(clips=[str(folder)], output=str(tmp_path / "o"), laws=False, shown=1, resamples=200))
    )
    assert content["counts"]["asked"] == 4
    assert content["counts"]["failed"] == 2
    assert set(content["failures"]) == {"g1", "g2"}
    assert "cannot be decoded" in content["failures"]["g1"]
    overall = next(row for row in content["table"] if row["primitive"] == "all")
    assert overall["penalised"]["iou"]["n"] == 4
    assert overall["penalised"]["iou"]["value"] < 0.5


def test_a_missing_clip_of_a_data_set_that_is_its_own_truth_keeps_its_place(truth, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(truth, own)
    (own / "clips/001.mp4").unlink()  # its arrays are there: full penalty
    (own / "clips/002.npz").unlink()  # its row promises arrays: no penalty can be known
    recipe = EvaluateRecipe(clips=[str(own)], output=str(tmp_path / "o"), laws=False, shown=1, resamples=200)
    content = result(evaluate.run(recipe))
    assert (content["counts"]["asked"], content["counts"]["failed"], content["counts"]["recordings"]) == (4, 2, 0)
    assert "no video file" in content["failures"]["001"]
    assert "no masks" in content["failures"]["002"]
    clips = {c["key"]: c for c in content["clips"]}
    assert clips["001"]["penalised"]["iou"]["value"] == 0
    assert clips["002"]["penalised"]["iou"]["value"] is None
    overall = next(row for row in content["table"] if row["primitive"] == "all")
    assert (overall["asked"], overall["failed"], overall["penalised"]["iou"]["n"]) == (4, 2, 3)
    again = recipe.model_copy(update={"baseline": str(tmp_path / "o"), "output": str(tmp_path / "p")})
    group = result(evaluate.run(again))["comparison"][0]
    assert (group["pairs"], group["unscored"]) == (3, 1)
    assert "1 pairs without readable truth are left out" in group["sentence"]


def test_two_sources_with_equal_clip_names_keep_their_own_films_and_failures(truth, tmp_path):
    for name, gravity in (("one", 170.0), ("two", 60.0)):
        generated(tmp_path / name, truth, gravity)
    (tmp_path / "one/clips/1.mp4").unlink()
    (tmp_path / "two/clips/2.mp4").write_bytes(b"nothing")
    clips = [str(tmp_path / "one"), str(tmp_path / "two")]
    items = collection.collect(clips)
    assert len({item.key for item in items}) == 8
    assert items[0].key == f"{tmp_path}/one/g0"
    recipe = EvaluateRecipe(clips=clips, output=str(tmp_path / "o"), laws=False, shown=8, resamples=200)
    content = result(evaluate.run(recipe))
    assert set(content["failures"]) == {f"{tmp_path}/one/g1", f"{tmp_path}/two/g2"}
    assert "no video file" in content["failures"][f"{tmp_path}/one/g1"]
    assert len(list((tmp_path / "o/plots").iterdir())) == 6
    scores = [evaluate.score(item) for item in items]
    shown = evaluate.pictures(items, scores, recipe)
    assert set(shown) == {s.key for s in scores if not s.failure}
    assert all(torch.equal(shown[i.key].frames, pixels(i.clip().frames)) for i in items if i.key in shown)


def test_equal_names_of_recordings_and_repeated_clips(tmp_path):
    for folder in ("a", "b"):
        write_video(tmp_path / folder / "wall.mp4", film(np.full((12, 2), np.nan)), 30.0)
    files = [str(tmp_path / folder / "wall.mp4") for folder in ("a", "b")]
    recipe = EvaluateRecipe(clips=files, output=str(tmp_path / "o"), laws=False, resamples=200)
    assert [r["name"] for r in result(evaluate.run(recipe))["recordings"]] == files
    with pytest.raises(InputError, match=r"wall\.mp4' is named twice"):
        collection.collect([files[0], str(tmp_path / "a")])


def test_recordings_without_truth_are_measured_or_say_why(tmp_path):
    positions, _ = parabola(30, 30.0, (30, 200), (260, -330), 360)
    write_video(tmp_path / "throw.mp4", film(positions), 30.0, crf=5)
    write_video(tmp_path / "empty wall.mp4", film(np.full((12, 2), np.nan)), 30.0, crf=5)
    (tmp_path / "corrupt.mp4").write_bytes(b"\x00" * 100)
    recipe = EvaluateRecipe(clips=[str(tmp_path)], output=str(tmp_path / "o"), object_size=0.67, resamples=200)
    content = result(evaluate.run(recipe))
    found = {r["name"]: r for r in content["recordings"]}
    assert found["throw.mp4"]["outcome"] == "measured"
    assert found["throw.mp4"]["gravity"]["gravity"] == pytest.approx(360 * 0.67 / 18, rel=0.12)
    assert found["throw.mp4"]["flight"]["acceleration"]["value"][1] == pytest.approx(360, rel=0.03)
    assert {law["law"] for law in found["throw.mp4"]["laws"]} >= {"constant_acceleration/object", "motion_floor"}
    assert found["empty wall.mp4"]["outcome"] == "not measured"
    assert "nothing moves" in found["empty wall.mp4"]["reason"]
    assert found["corrupt.mp4"]["outcome"] == "failed"
    assert content["counts"]["recordings_not_measured"] == 2
    assert {p.name for p in (tmp_path / "o/plots").iterdir()} == {"throw-flight.png", "throw-gravity.png"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.mp4", None, "no clip or folder"),
        ("empty.mp4", b"", "empty"),
        ("corrupt.mp4", b"\x00\x01" * 500, "cannot be decoded"),
        ("notes.txt", b"hello", "not a video file"),
    ],
)
def test_unusable_files_get_one_sentence_and_exit_2(tmp_path, capsys, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["evaluate", str(tmp_path / name), "--out", str(tmp_path / "o")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert name in said
    assert words in said


def test_one_frame_is_not_a_clip(tmp_path):
    write_video(tmp_path / "one.mp4", torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 24.0)
    with pytest.raises(InputError, match=r"one\.mp4.*at least two"):
        evaluate.run(EvaluateRecipe(clips=[str(tmp_path / "one.mp4")], output=str(tmp_path / "o")))


def test_nothing_named_and_nothing_matching(truth, tmp_path):
    with pytest.raises(InputError, match="nothing to evaluate"):
        evaluate.run(EvaluateRecipe(output=str(tmp_path / "o")))
    with pytest.raises(InputError, match="no clip matches"):
        evaluate.run(EvaluateRecipe(clips=[str(truth)], where={"primitive": "ramp_up"}, output=str(tmp_path / "o")))


def test_clips_in_memory_are_compared_in_five_lines(tmp_path):
    true = [throw(s) for s in range(2)]
    before = evaluate.evaluate_pairs("base", [(throw(s, 90.0), true[s]) for s in range(2)])
    after = evaluate.evaluate_pairs("tuned", list(zip(true, true, strict=True)), maps=False)
    page = report.compare(tmp_path / "report.html", before, after, resamples=200)
    assert page.read_text().count("<video") == 2
    assert after.clips[0].penalised["iou"].value > before.clips[0].penalised["iou"].value


def test_frames_that_are_not_numbers_are_refused():
    true = throw(0)
    broken = Clip(true.frames.clone(), FPS)
    broken.frames[3] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        evaluate.evaluate_pairs("broken", [(broken, true)])


def test_shipped_recipes_load():
    assert load(EvaluateRecipe, "evaluate-newtonbench").resamples == 5000
    assert load(EvaluateRecipe, "evaluate-recording", object_size=0.067).scale_error == 0.03


def test_where_every_clip_fails_the_reasons_of_all_are_written(tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    for name in ("one.mp4", "two.avi"):
        (tmp_path / "clips" / name).write_text("no video")
    assert main(["evaluate", str(tmp_path / "clips"), "--out", str(tmp_path / "out")]) == 2
    assert "1 more clips failed" in capsys.readouterr().err
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())["recordings"]
    assert all("cannot be decoded" in row["reason"] for row in told)
    assert [Path(row["name"]).name for row in told] == ["one.mp4", "two.avi"]
    assert all(row["sentence"].startswith(row["reason"]) for row in told), "files keep their names"
    assert (tmp_path / "out" / "report.html").is_file()
    again = ["evaluate", str(tmp_path / "clips"), "--out", str(tmp_path / "two"), "--benchmark", "vbench-motion"]
    assert main(again) == 2
    assert (tmp_path / "two" / "benchmarks.json").is_file()


def test_two_scales_are_one_too_many():
    with pytest.raises(InputError, match="two scales"):
        Settings(metres_per_pixel=0.01, object_size=0.07).scales()


def test_intervals_stay_where_the_number_can_be():
    rows = [ClipRow(str(k), str(k), {"share": float(k > 0)}) for k in range(4)]
    free, kept = (mean_score("share", rows, "1", lower_is_better=False, **limits) for limits in ({}, {"within": (0, 1)}))
    assert free.high > 1
    assert (kept.low, kept.high) == (max(free.low, 0), 1)
