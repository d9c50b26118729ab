"""``visviva evaluate --benchmark``: JSON and report, skipped benchmarks, help, bad names."""

from __future__ import annotations

import json

import pytest
import torch

from visviva.cli import main
from visviva.configs.evaluate import EvaluateRecipe
from visviva.data.video import write_video
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


def test_several_benchmarks_in_one_run(moving):
    recipe = EvaluateRecipe(clips=[str(moving / "clips")], output=str(moving / "o"), benchmark=["physics-iq", "pisa"])
    assert [r["benchmark"] for r in content(evaluate.run(recipe))["results"]] == ["physics-iq", "pisa"]
