"""``visviva optim``: the table of optimizers and the benchmark, on tiny shapes; no time is asserted."""

from __future__ import annotations

import json

import pytest

from visviva import cli
from visviva.configs.optim import OptimRecipe
from visviva.configs.schema import load
from visviva.errors import InputError
from visviva.optim import BY_NAME
from visviva.pipelines import optim_bench
from visviva.pipelines.optim import describe, run


def test_the_list_names_every_optimizer_with_its_memory(capsys):
    assert cli.main(["optim", "list"]) == 0
    out = capsys.readouterr().out
    for name in BY_NAME:
        assert f"\n{name} " in out
    rows = {name: describe(name) for name in ("adamw", "lion", "adan", "muon")}
    assert [round(r["bytes"]) for r in rows.values()] == [8, 4, 16, 4]
    assert [r["states"] for r in rows.values()] == [2, 1, 4, 1]
    assert "hidden matrices" in rows["muon"]["parameters"]


def test_the_list_says_what_each_can_do(recwarn):
    rows = {name: describe(name) for name in BY_NAME}
    keys = ("compiled", "fsdp2", "int8", "capturable", "sparse")
    assert [rows["adamw"][k] for k in keys] == ["yes", "shards", "yes", "yes", "refused"]
    assert [rows["adamp"][k] for k in keys] == ["yes", "gathers", "no", "yes", "refused"]
    assert [rows["muon"][k] for k in keys] == ["partly", "gathers", "no", "yes", "refused"]
    assert [rows["fismo"][k] for k in keys] == ["partly", "gathers", "no", "no", "refused"]
    assert all("arXiv" in row["what"] or name == "sgdm" for name, row in rows.items())
    assert not [w for w in recwarn if "without names" in str(w.message)]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(optim_bench.PRESETS, "tiny", [(3, 4), (5,)])


def test_the_benchmark_writes_numbers_and_a_plot(small, tmp_path, capsys):
    recipe = OptimRecipe(action="bench", optimizers=["adamw", "adamp"], shapes=["tiny"], repetitions=3, cold=False)
    run(recipe.model_copy(update={"output": str(tmp_path)}))
    content = json.loads((tmp_path / "optim.json").read_text())
    assert {"commit", "versions"} <= set(content["made_with"])
    assert content["machine"]["cores"]
    rows = {(r["optimizer"], r["implementation"]): r for r in content["rows"]}
    assert {"ours adopted", "ours gathered", "ours eager", "torch fused"} <= {kind for _, kind in rows}
    for row in rows.values():
        assert row["ns"] > 0
        assert row["median_ns"] >= row["ns"]
        assert row["over_floor"] == pytest.approx(row["ns"] / row["floor_ns"])
    assert rows["adamw", "ours adopted"]["floor_bytes"] == 28
    assert rows["adamp", "ours adopted"]["floor_bytes"] == 40
    assert str(tmp_path) not in json.dumps(content)
    assert (tmp_path / "optim.png").read_bytes().startswith(b"\x89PNG")
    assert "ours adopted" in capsys.readouterr().out


def test_the_floor_moves_weights_gradient_and_states(small):
    memory = {"copy": 10.0, "add_in_place": 14.0}
    found = optim_bench.over_floor({"ns": 4.0}, "lion", optim_bench.torch.float32, memory)
    assert found["floor_ns"] == pytest.approx(20 / 14)
    assert "floor_ns" not in optim_bench.over_floor({"ns": 4.0}, "muon", optim_bench.torch.float32, memory)


def test_a_peer_that_fails_is_a_finding():
    def build(parameters):
        raise RuntimeError("no kernel")

    assert optim_bench.measure(build, [(2,)], optim_bench.torch.float32, optim_bench.torch.device("cpu"), 3) == {
        "failed": "RuntimeError: no kernel"
    }


def test_wan_has_its_real_shapes():
    shapes = optim_bench.wan_shapes()
    assert (8960, 1536) in shapes
    assert 1.3e9 < sum(optim_bench.torch.Size(s).numel() for s in shapes) < 1.5e9


def test_an_unknown_optimizer_names_the_closest():
    with pytest.raises(InputError, match="did you mean 'adamw'"):
        run(OptimRecipe(action="bench", optimizers=["adamv"]))


def test_the_shipped_recipe_asks_for_the_benchmark():
    assert load(OptimRecipe, "optim-bench").action == "bench"
