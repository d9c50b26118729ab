"""The update recorder against closed forms of the updates, the spike log against planted spikes, the figures of both."""

import json
import math

import pytest
import torch
from torch import nn

from visviva.errors import InputError
from visviva.eval.optimizer_plots import spikes, updates
from visviva.eval.plots import rendered
from visviva.optim.adamw import AdamW
from visviva.optim.diagnostics import SpikeLog, UpdateRecorder, to_json
from visviva.optim.lion import Lion
from visviva.optim.mkor import MKOR
from visviva.optim.sgd import SGDM

D = torch.float64
SGD = lambda params, lr: SGDM(params, lr=lr, momentum=0.0)  # noqa: E731


def weights(dtype=D):
    torch.manual_seed(0)
    return nn.ParameterDict({"a": nn.Parameter(torch.randn(4, 3, dtype=dtype)), "b": nn.Parameter(torch.randn(5, dtype=dtype))})


def step(optimizer, model, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = scale * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    optimizer.step()


@pytest.mark.parametrize("make", [SGD, lambda p, lr: torch.optim.SGD(p, lr=lr)])
def test_gradient_descent_has_its_rate_as_effective_step(make):
    model = weights()
    optimizer = make(model.parameters(), 0.05)
    recorder = UpdateRecorder(optimizer, dict(model.named_parameters()))
    before = model["a"].detach().clone()
    step(optimizer, model, 7)
    rows = {row["name"]: row for row in recorder.rows()}
    assert set(rows) == {"a", "b"}
    a = rows["a"]
    norm = torch.linalg.vector_norm
    assert a["step"] == 1
    assert a["lr"] == 0.05
    assert a["effective_step"] == pytest.approx(0.05, rel=1e-12)
    assert a["weight"] == pytest.approx(norm(before).item())
    assert a["gradient"] == pytest.approx(norm(model["a"].grad).item())
    assert a["ratio"] == pytest.approx(0.05 * norm(model["a"].grad).item() / norm(before).item())
    cosine = (before * model["a"].detach()).sum() / norm(before) / norm(model["a"].detach())
    assert a["turn"] == pytest.approx(math.acos(cosine.item()), rel=1e-9)


def test_sign_steps_have_one_size_and_whole_updates_can_be_kept():
    model = weights()
    kept = {}
    optimizer = Lion(model.parameters(), lr=0.01)
    recorder = UpdateRecorder(optimizer, keep=lambda t, name, u: kept.update({(t, name): u}))
    step(optimizer, model)
    step(optimizer, model, 1, scale=1000.0)
    assert torch.allclose(kept[2, "0"].abs(), torch.full((4, 3), 0.01, dtype=D), rtol=0, atol=1e-15)
    assert [row["update"] for row in recorder.rows() if row["name"] == "1"] == pytest.approx([0.01 * math.sqrt(5)] * 2)


def test_a_spike_moves_adam_and_not_lion():
    """Regression of the update recorder: unit gradients, then one 1000 times larger, then unit ones again."""
    moves = {}
    for name, make in (("adam", lambda p: AdamW(p, lr=0.01, weight_decay=0.0)), ("lion", lambda p: Lion(p, lr=0.01))):
        p = nn.Parameter(torch.zeros(1, dtype=D))
        optimizer = make([p])
        recorder = UpdateRecorder(optimizer)
        for t in range(30):
            p.grad = torch.full((1,), 1000.0 if t == 20 else 1.0, dtype=D)
            optimizer.step()
        moves[name] = [row["update"] for row in recorder.rows()]
    m, v = 1 - 0.9**20, 1 - 0.999**20
    m, v = 0.9 * m + 100.0, 0.999 * v + 1000.0
    assert moves["adam"][:20] == pytest.approx([0.01] * 20, rel=1e-6)
    assert moves["adam"][20] == pytest.approx(0.01 * m / (1 - 0.9**21) / math.sqrt(v / (1 - 0.999**21)), rel=1e-6)
    assert moves["lion"] == pytest.approx([0.01] * 30)


def test_period_removal_skipped_parameters_and_wrappers():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = MKOR(model, SGD(model.parameters(), 0.1), refresh=1)
    recorder = UpdateRecorder(optimizer, dict(model.named_parameters()), every=2)
    for seed in range(5):
        optimizer.zero_grad()
        model[0](torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))).sum().backward()
        optimizer.step()
    assert {row["step"] for row in recorder.rows()} == {1, 3, 5}
    assert {row["name"] for row in recorder.rows()} == {"0.weight", "0.bias"}
    recorder.remove()
    optimizer.step()
    assert recorder.step == 5


def test_names_of_the_optimizer_and_closures():
    model = weights()
    optimizer = SGD(model.named_parameters(), 0.1)
    recorder, log = UpdateRecorder(optimizer), SpikeLog(optimizer, wait=1)

    def closure():
        optimizer.zero_grad()
        loss = sum(p.square().sum() for p in model.parameters())
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    assert [row["name"] for row in recorder.rows()] == ["a", "b"] * 3
    assert recorder.rows()[0]["effective_step"] == pytest.approx(0.1)
    assert not log.rows()


def test_planted_spikes_are_found_with_their_score():
    model = weights(torch.float32)
    optimizer = SGD(model.parameters(), 0.0)
    log = SpikeLog(optimizer, dict(model.named_parameters()), threshold=50.0, wait=10)
    sizes = []
    for t in range(40):
        generator = torch.Generator().manual_seed(t)
        gradient = torch.randn(4, 3, generator=generator)
        if t == 5:
            gradient[0, 0] = 400.0  # too early to count
        if t == 25:
            gradient[2, 1] = -400.0
        sizes.append(abs(gradient[2, 1].item()))
        model["a"].grad, model["b"].grad = gradient, torch.ones(5)
        optimizer.step()
    (row,) = log.rows()
    mean = sum(sizes[:25]) / 25
    assert row["step"] == 26
    assert row["name"] == "a"
    assert row["spikes"] == 1
    assert row["index"] == 7
    assert row["gradient"] == -400.0
    assert row["score"] == pytest.approx(400 / mean, rel=1e-5)


def test_no_spikes_in_gaussian_noise_and_a_constant_gradient():
    model = weights()
    optimizer = SGD(model.parameters(), 0.0)
    log = SpikeLog(optimizer, wait=20)
    for seed in range(60):
        step(optimizer, model, seed)
    assert log.rows() == []


def test_json_and_figures(tmp_path):
    model = weights()
    optimizer = AdamW(model.parameters(), lr=0.01)
    recorder, log = UpdateRecorder(optimizer, dict(model.named_parameters())), SpikeLog(optimizer, wait=2)
    for seed in range(6):
        step(optimizer, model, seed, scale=1e5 if seed == 4 else 1.0)
    with torch.no_grad():
        model["b"].zero_()
    step(optimizer, model, 7)
    text = to_json(recorder.rows(), tmp_path / "updates.json")
    assert json.loads(text) == json.loads((tmp_path / "updates.json").read_text())
    assert json.loads(text)[-1]["ratio"] is None  # from zero weights
    assert len(log.rows()) == 2
    for draw in (updates(recorder.rows()), updates(json.loads(text), most=1), spikes(log.rows()), spikes([])):
        assert all(png.startswith(b"\x89PNG") for png in rendered(draw, 6, 2.5))


def test_bad_input_is_one_sentence():
    optimizer = SGD([nn.Parameter(torch.ones(1))], 0.1)
    with pytest.raises(InputError, match="every is 0"):
        UpdateRecorder(optimizer, every=0)
    with pytest.raises(InputError, match="threshold is 0"):
        SpikeLog(optimizer, threshold=0.0)
    with pytest.raises(InputError, match="no recorded updates"):
        updates([])
