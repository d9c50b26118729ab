"""``visviva evaluate --benchmark``: JSON and report, skipped benchmarks, help, bad names."""

from __future__ import annotations

import json

import pytest
import torch

from visviva.cli import main
from visviva.configs.evaluate import EvaluateRecipe
from visviva.data.video import write_video
from visviva.errors import InputError
from visviva.eval.benchmarks import BENCHMARKS
from visviva.pipelines import evaluate


@pytest.fixture
def moving(tmp_path):
    frames = torch.full((12, 3, 32, 32), 0.2)
    for t in range(12):
        frames[t, :, 8:16, t : t + 8] = 0.9
    write_video(tmp_path / "clips/0001_a.mp4", frames, 8.0)
    return tmp_path


def content(folder):
    return json.loads((folder / "benchmarks.json").read_text())


def test_every_name_on_the_command_line_has_a_module():
    from typing import get_args

    from visviva.configs.evaluate import Benchmark

    assert set(get_args(Benchmark)) == set(BENCHMARKS)


def test_a_benchmark_without_its_input_is_skipped_in_file_and_report(moving, capsys):
    out = moving / "o"
    assert main(["evaluate", str(moving / "clips"), "--benchmark", "physics-iq", "--out", str(out)]) == 0
    found = content(out)["results"][0]
    assert found["benchmark"] == "physics-iq"
    assert "no reference given" in found["skipped"]["all"]
    assert "Skipped: no reference given" in (out / "report.html").read_text()
    assert "physics-iq: skipped" in capsys.readouterr().out


def test_a_name_that_is_no_benchmark_is_refused(moving, capsys):
    assert main(["evaluate", str(moving / "clips"), "--benchmark", "physiq"]) == 2
    assert "physics-iq" in capsys.readouterr().err


def test_a_benchmark_that_cannot_run_does_not_take_the_others_with_it(moving):
    words = {"clips": [str(moving / "clips")], "output": str(moving / "o"), "resamples": 200}
    recipe = EvaluateRecipe(**words, benchmark=["vbench-motion", "physics-iq"], reference=str(moving / "clips"))
    first, second = content(evaluate.run(recipe))["results"]
    assert first["scores"]
    assert "both takes are there" in second["skipped"]["all"]
    with pytest.raises(InputError, match="both takes are there"):
        evaluate.run(recipe.model_copy(update={"benchmark": ["physics-iq"]}))


def test_several_benchmarks_in_one_run(moving):
    recipe = EvaluateRecipe(clips=[str(moving / "clips")], output=str(moving / "o"), benchmark=["physics-iq", "pisa"])
    assert [r["benchmark"] for r in content(evaluate.run(recipe))["results"]] == ["physics-iq", "pisa"]


def test_physics_iq_from_the_command_line(tmp_path):
    wall = torch.full((40, 3, 32, 32), 0.2)
    for name, shift in (("real/0001_testing-videos_8FPS_perspective-left_take-1_a", 0), ("made/0001_mine", 0)):
        _moved(wall, shift, tmp_path / f"{name}.mp4")
    _moved(wall, 1, tmp_path / "real/0002_testing-videos_8FPS_perspective-left_take-2_a.mp4")
    words = ["--benchmark", "physics-iq", "--reference", str(tmp_path / "real"), "--out", str(tmp_path / "o"), "--codec"]
    assert main(["evaluate", str(tmp_path / "made"), *words, "--resamples", "200"]) == 0
    found = content(tmp_path / "o")
    scores = {s["name"]: s for s in found["results"][0]["scores"]}
    assert scores["score"]["value"] == 100
    assert scores["mse"]["lower_is_better"]
    assert found["about"]["recipe"]["codec"]
    page = (tmp_path / "o/report.html").read_text()
    assert "physics-iq, version 1" in page
    assert "through lossy video" in page.lower()


def _moved(wall, shift, path):
    frames = wall.clone()
    for t in range(40):
        left = (t // 2 + shift) % 20
        frames[t, :, 8:20, left : left + 12] = 0.9
    write_video(path, frames, 8.0, crf=0)


def test_a_judge_by_name_from_the_command_line(moving, monkeypatch):
    monkeypatch.syspath_prepend(str(moving))
    (moving / "my_own_judge.py").write_text("def ask(frames, question):\n    return '5'\n")
    (moving / "prompts.csv").write_text("id,prompt\n0001_a,A ball falls.\n")
    words = ["--benchmark", "videophy2", "--judge", "my_own_judge:ask", "--prompts", str(moving / "prompts.csv")]
    assert main(["evaluate", str(moving / "clips"), *words, "--out", str(moving / "o")]) == 0
    found = content(moving / "o")["results"][0]
    assert found["scores"][0] | {"name": "joint", "value": 1.0, "used": 1} == found["scores"][0]
    assert found["standing"] == "uncalibrated"


def test_help_says_what_each_benchmark_needs(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in BENCHMARKS:
        assert name in said
    assert "docs/benchmarks.md" in said
