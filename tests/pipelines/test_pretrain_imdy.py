"""Training of learned inverse dynamics and of the biodynamic networks by the command, at tiny sizes; and what is shipped."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

import visviva.models
from visviva.configs.pretrain import BiomechanicsStage, ImdyStage, PretrainRecipe
from visviva.data.motions.emg import MUSCLES
from visviva.models.biomechanics.biodynamics import Biodynamics
from visviva.models.imdy import FPS, ImDy
from visviva.pipelines.pretrain import run
from visviva.pipelines.pretrain.biomechanics import moments
from visviva.pipelines.pretrain.imdy_clips import clips, turned

WEIGHTS = Path(visviva.models.__file__).parent / "weights"


@pytest.fixture(scope="module")
def few():
    return clips(1, seed=5, seconds=1.0, actions=("walk", "squat", "bow"))


def test_windows_and_their_truth_are_of_one_moment(few):
    at = few.places[[0, 40]]
    window, (torque, force) = few.window(at, torch.arange(22)), few.truth(at)
    for row, (clip, frame) in enumerate(at.tolist()):
        assert torch.equal(window[row, 2], few.markers[clip, frame, :22])
        assert torch.equal(torque[row], few.torque[clip, frame])
        assert torch.equal(force[row, 1], few.force[clip, frame + 1])
    whole, push = turned(window, force, torch.full((2,), torch.pi / 2))
    assert torch.allclose(whole[..., 0], -window[..., 1], atol=1e-5)
    assert torch.allclose(push[..., 1], force[..., 0], atol=1e-5)
    assert torch.equal(whole[..., 2], window[..., 2])


def test_moments_move_as_they_say(few):
    found = moments(few, seed=0)
    later = found.position[:-1] + (found.velocity[:-1] + found.acceleration[:-1] / FPS) / FPS
    same = found.clip[1:] == found.clip[:-1]
    assert torch.allclose(later[same], found.position[1:][same], atol=1e-3)
    window = found.windows(torch.arange(4))
    assert window.shape == (4, MUSCLES, 200)
    assert torch.equal(window[0, :, 150], found.signal[0, :, found.start[0] + 150])


def trained(tmp_path, model):
    tiny = {
        "imdy": ImdyStage(clips=1, test=1, steps=2, batch_size=8, cycle=4, validate_every=2),
        "biomechanics": BiomechanicsStage(clips=1, test=1, contrast_steps=1, contrast_batch=8, steps=2, batch_size=8),
    }
    return run(PretrainRecipe(model=model, out=str(tmp_path), **{model: tiny[model]}))


@pytest.mark.parametrize(("model", "kind"), [("imdy", ImDy), ("biomechanics", Biodynamics)])
def test_the_command_writes_a_model_with_its_card(tmp_path, model, kind):
    folder = trained(tmp_path, model)
    kind.load(folder / "model.safetensors")
    check(folder)
    numbers = json.loads((folder / "numbers.json").read_text())["numbers"]
    assert all(value == value for value in numbers.values())


def check(folder):
    """Sums fit, the card and the recipe are there, and it is small."""
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert {"README.md", "recipe.json", "numbers.json", "model.safetensors"} <= {file.name for file in folder.iterdir()}
    assert (folder / "model.safetensors").stat().st_size < 1_000_000
    PretrainRecipe.model_validate_json((folder / "recipe.json").read_text())


def test_shipped_weights_are_what_their_card_says():
    """Half the error of predicting the mean; next markers with true torques; muscles that help: of the training's own test."""
    for name in ("imdy", "biomechanics"):
        check(WEIGHTS / name)
    numbers = json.loads((WEIGHTS / "imdy/numbers.json").read_text())["numbers"]
    assert numbers["torque_share_of_mean"] <= 0.5
    assert numbers["next_true_mm"] < numbers["next_shuffled_torque_mm"]
    numbers = json.loads((WEIGHTS / "biomechanics/numbers.json").read_text())["numbers"]
    assert numbers["acceleration_error"] < numbers["acceleration_error_masked"] < numbers["acceleration_error_shuffled"]


def test_shipped_networks_work(few):
    model = ImDy.load()
    found = model(few.markers[:, :, :22], FPS)
    true = few.torque[:, found.frames.start : found.frames.stop]
    mean = few.torque.mean((0, 1))
    assert float((found.torque - true).norm(dim=-1).mean()) < 0.7 * float((mean - true).norm(dim=-1).mean())
    mixed = model(few.markers[:, :, torch.randperm(22)], FPS)
    assert torch.allclose(mixed.torque, found.torque, atol=1e-4)
    assert float(found.force[1, ..., 2].sum(-1).mean().detach()) == pytest.approx(1, abs=0.25), "a squat carries its weight"
    found = moments(few, seed=0)
    told = Biodynamics.load()(found.position, found.velocity, found.windows(torch.arange(len(found))))
    assert float((told - found.acceleration).abs().mean()) < float(found.acceleration.abs().mean())
