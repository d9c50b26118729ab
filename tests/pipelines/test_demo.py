"""The demo does the main job once on the shipped model, says what it found, and does not do it twice."""

import json
import math
from pathlib import Path

import pytest
import torch

from visviva.configs.demo import DemoRecipe
from visviva.configs.schema import load
from visviva.data.scenes import PRIMITIVES
from visviva.errors import InputError
from visviva.eval.comparison import compare
from visviva.eval.newtonbench import score_clip
from visviva.eval.run import Run
from visviva.pipelines import demo


@pytest.mark.slow
def test_the_main_job_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = DemoRecipe(output=str(tmp_path / "demo"), train_clips=5, held_out_clips=10, updates=1, sampler_steps=4)
    out = demo.run(recipe)
    found = json.loads((out / "metrics.json").read_text())
    assert [len(found[name]["clips"]) for name in ("before", "after")] == [10, 10]
    assert {clip["primitive"] for clip in found["before"]["clips"]} == set(PRIMITIVES)
    assert len(found["comparison"]) == 6
    said = capsys.readouterr().out
    for group in found["comparison"]:
        assert ("not significant" in group["sentence"]) == (group["verdict"] == "no significant difference")
        assert group["sentence"] in said
    page = (out / "report.html").read_text()
    assert found["comparison"][0]["sentence"].split(",")[0] in page.lower()
    assert "http://" not in page.replace("http://www.w3.org", "")
    values = [clip["penalised"]["l2"]["value"] for clip in found["after"]["clips"]]
    assert all(math.isfinite(v) and v >= 0 for v in values)
    written = (out / "metrics.json").stat().st_mtime_ns
    capsys.readouterr()
    assert demo.run(recipe) == out
    assert "already done" in capsys.readouterr().out
    assert (out / "metrics.json").stat().st_mtime_ns == written
    with pytest.raises(InputError, match="other settings"):
        demo.run(recipe.model_copy(update={"updates": 2}))


def test_the_shipped_recipe_is_the_default() -> None:
    assert load(DemoRecipe, "demo-newton") == DemoRecipe()


def test_the_lead_says_plainly_when_nothing_can_be_told() -> None:
    true = torch.zeros(6, 1, 16, 16, dtype=torch.bool)
    for t in range(6):
        true[t, 0, 2 + t : 6 + t, 4:8] = True
    clips = [score_clip(true, true, 8.0, 8.0, key=str(i), scene=str(i), primitive="free_fall", split="id") for i in range(3)]
    groups = compare(Run("a", clips), Run("b", clips))
    assert "not significant" in demo.lead(groups, DemoRecipe())
