"""The optimizer benchmarks run, go on where they stopped, and their search and statistics are right; tiny sizes."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in [n for n in sys.modules if n.startswith("optim_")]:
        sys.modules.pop(name)


def test_search_stops_between_worse_neighbours(module):
    sweep = module("optim_sweep")
    tried = []

    def value(rate):
        tried.append(rate)
        return None if rate > 0.5 else math.log(rate / 0.02) ** 2

    best, found = sweep.search(0.1, value)
    assert best == pytest.approx(0.02)
    assert {0.01, 0.05} <= set(found)
    assert len(tried) == len(found) <= 6


def test_search_comes_down_from_divergence(module):
    best, _ = module("optim_sweep").search(1.0, lambda rate: None if rate > 0.1 else rate)
    assert best < 0.1


def test_interval_is_students(module):
    row = module("optim_sweep").interval([1.0, 2.0, 3.0])
    assert row["mean"] == 2.0
    assert row["half_width"] == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert module("optim_sweep").interval([1.0, None])["failed"] == 1


def test_verdicts(module):
    toys = module("optim_toys")
    assert toys.compare("", "", [1.0, 1.1, 0.9], [2.0, 2.2, 1.9])["verdict"] == "reproduced"
    assert toys.compare("", "", [2.0, 2.2, 1.9], [1.0, 1.1, 0.9])["verdict"] == "opposite"
    assert toys.compare("", "", [1.0, 1.2, 0.9], [1.1, 1.0, 0.9])["verdict"] == "not reproduced"


def test_small_gpt_runs_and_resumes(module, tmp_path):
    gpt, sweep, methods = module("optim_gpt"), module("optim_sweep"), module("optim_methods").METHODS
    task = gpt.Task(layers=1, width=16, context=8, batch=2)
    chosen = {n: methods[n] for n in ("adamw", "muon", "torch_adamw")}
    found = sweep.measure(task, chosen, tmp_path, steps=20, seeds=2, most=2)
    assert set(found) == set(chosen)
    for row in found.values():
        assert row["same_steps"]["validation"]["mean"] < task.failure
    assert found["torch_adamw"]["same_steps"]["values"] == pytest.approx(found["adamw"]["same_steps"]["values"], rel=1e-4)
    files = {f: f.stat().st_mtime_ns for f in tmp_path.iterdir()}
    assert sweep.measure(task, chosen, tmp_path, steps=20, seeds=2, most=2, minutes=0) == found
    assert {f: f.stat().st_mtime_ns for f in tmp_path.iterdir()} == files


@pytest.mark.parametrize("name", ["muon", "namo", "adan", "lion", "spam"])
def test_every_method_of_the_tiny_wan_can_be_made(module, name):
    methods, wan = module("optim_methods").METHODS, module("optim_wan")
    assert name in wan.STARTS
    weights = [("blocks.0.to_q.weight", torch.nn.Parameter(torch.eye(4)))]
    weights[0][1].grad = torch.ones(4, 4)
    methods[name].make(weights, 1e-2)[0].step()
    assert not torch.equal(weights[0][1].detach(), torch.eye(4))


def test_plots_and_tables(module, tmp_path):
    report = module("optim_report")
    row = {"mean": 2.0, "half_width": 0.1, "n": 3, "failed": 0}
    same = {"validation": row, "training": row, "minus_adamw": row}
    method = {
        "lr": 1e-3,
        "tried": {"0.001": 2.0, "0.002": 2.1},
        "ms_per_update": 1.0,
        "steps_in_equal_seconds": 9,
        "same_steps": same,
    }
    content = {"methods": {"adamw": method, "muon": {**method, "same_seconds": same}}}
    report.training_plot(content, tmp_path / "a.png", "loss")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert "2.000 ± 0.100" in report.training_table(content, 3)
