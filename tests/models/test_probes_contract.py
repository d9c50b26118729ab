"""What every probe must keep to. A probe that is new in PROBES needs a line in BUILD, or the suite fails."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tiny_vjepa2 import saved_vjepa2

from visviva.errors import InputError
from visviva.models.probes import PROBES, Combined, LucasKanade, MotionMasks, Objects, Oracle, PatchFeatures, TrackedMasks
from visviva.models.probes.flow import RAFTNetwork
from visviva.physics.measurement import Measurement, Probe
from visviva.physics.sprites import random_sprites
from visviva.physics.tracks import Tracks

CLIPS, FRAMES, SIDE = 2, 5, 32
FPS = torch.tensor([30.0, 24.0])


@pytest.fixture(scope="module")
def drawn():
    return random_sprites(CLIPS, seed=4, frames=FRAMES, height=SIDE, width=SIDE, radius=(4.0, 6.0)).render()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A V-JEPA 2 model with tiny random weights, saved the way real ones are."""
    path = saved_vjepa2(tmp_path_factory.mktemp("vjepa2"), crop_size=32)
    assert json.loads((path / "config.json").read_text())["model_type"] == "vjepa2"
    return path


def tiny_vae():
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    return AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[True], is_residual=True, patch_size=2,
        in_channels=12, out_channels=12, latents_mean=[0.0] * 4, latents_std=[1.0] * 4, scale_factor_temporal=2,
        scale_factor_spatial=4,
    )  # fmt: skip


def raft_weights(path):
    """Random weights in torchvision's layout: they measure nothing true, but the interface."""
    torch.manual_seed(0)
    save_file(RAFTNetwork("small").state_dict(), path)
    return path


BUILD = {
    "lucas_kanade": lambda **_: PROBES["lucas_kanade"](),
    "dis": lambda **_: PROBES["dis"](),
    "flow_network": lambda **_: PROBES["flow_network"](),
    "raft": lambda folder, **_: PROBES["raft"](raft_weights(folder / "raft.safetensors"), updates=2),
    "patches": lambda **_: PROBES["patches"](),
    "vae": lambda **_: PROBES["vae"](tiny_vae()),
    "vjepa2": lambda folder, **_: PROBES["vjepa2"](folder),
    "oracle": lambda drawn, **_: PROBES["oracle"](flow=drawn.flow, masks=drawn.masks),
    "combined": lambda **_: Combined(LucasKanade(), masks=TrackedMasks(), features=PatchFeatures()),
    "objects": lambda **_: PROBES["objects"](),
    "points": lambda **_: PROBES["points"](LucasKanade()),
    "combined, objects": lambda **_: Combined(LucasKanade(), masks=Objects()),
    "combined, unaided": lambda **_: Combined(LucasKanade(), masks=MotionMasks()),
}
every_probe = pytest.mark.parametrize("name", BUILD)


@pytest.fixture(scope="module")
def probes(drawn, folder):
    return {name: build(drawn=drawn, folder=folder) for name, build in BUILD.items()}


def tensors(measured, quantity):
    """The tensors of a measured quantity by name; tracks hold several."""
    value = getattr(measured, quantity)
    found = vars(value) if isinstance(value, Tracks) else {quantity: value}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def test_no_probe_is_untested():
    assert set(PROBES) <= set(BUILD)


@every_probe
def test_a_probe_fills_what_it_says_with_the_promised_shapes_and_types(name, probes, drawn):
    probe = probes[name]
    assert isinstance(probe, Probe)
    measured = probe(drawn.frames, FPS, drawn.masks)
    assert isinstance(measured, Measurement)
    assert torch.equal(measured.fps, FPS)
    for quantity in ("flow", "confidence", "features", "noise"):
        value = getattr(measured, quantity)
        assert (value is not None) == (quantity in probe.measures) or (quantity == "noise" and value is not None)
        if value is not None:
            assert value.dtype == torch.float32
            assert torch.isfinite(value).all()
            assert value.shape[0] == CLIPS
    if measured.confidence is not None:
        assert not measured.confidence.requires_grad
        assert 0 <= float(measured.confidence.min()) <= float(measured.confidence.max()) <= 1
    assert measured.masks.shape == drawn.masks.shape
    assert 0 <= float(measured.masks.min()) <= float(measured.masks.max()) <= 1.00001
    if "masks" not in probe.measures:
        assert measured.masks is drawn.masks


@every_probe
def test_a_probe_is_deterministic_and_a_batch_is_its_clips(name, probes, drawn):
    probe = probes[name]
    whole, again = probe(drawn.frames, FPS, drawn.masks), probe(drawn.frames, FPS, drawn.masks)
    for quantity in probe.measures:
        for part, tensor in tensors(again, quantity).items():
            assert torch.equal(tensors(whole, quantity)[part], tensor), part
    if isinstance(probe, Oracle):
        return
    for i in range(CLIPS):
        one = probe(drawn.frames[i : i + 1], FPS[i : i + 1], drawn.masks[i : i + 1])
        for quantity in probe.measures:
            for part, tensor in tensors(one, quantity).items():
                assert torch.allclose(tensors(whole, quantity)[part][i], tensor[0], atol=2e-4), part


@every_probe
def test_the_differentiability_flag_tells_the_truth(name, probes, drawn):
    probe = probes[name]
    frames = drawn.frames.clone().requires_grad_()
    measured = probe(frames, FPS, drawn.masks)
    for quantity in probe.measures & {"flow", "features"}:
        value = getattr(measured, quantity)
        assert value.requires_grad == probe.differentiable, quantity
        if probe.differentiable:
            weight = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
            (gradient,) = torch.autograd.grad((value * weight).sum(), frames, retain_graph=True)
            assert torch.isfinite(gradient).all()
            assert float(gradient.abs().max()) > 0, quantity


@every_probe
def test_a_probe_is_frozen(name, probes):
    parts = getattr(probes[name], "parts", [probes[name]])
    for part in parts:
        for network in vars(part).values():
            if isinstance(network, torch.nn.Module):
                assert not any(parameter.requires_grad for parameter in network.parameters())


@every_probe
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_blank_clips_give_finite_measurements_and_gradients(name, probes, drawn, value):
    probe = probes[name]
    frames = torch.full_like(drawn.frames, value).requires_grad_()
    measured = probe(frames, FPS, drawn.masks)
    for quantity in probe.measures:
        for part, tensor in tensors(measured, quantity).items():
            assert torch.isfinite(tensor).all(), part
    graphs = [tensor for q in probe.measures for tensor in tensors(measured, q).values() if tensor.requires_grad]
    if graphs:
        (gradient,) = torch.autograd.grad(sum(g.square().sum() for g in graphs), frames)
        assert torch.isfinite(gradient).all()
    if measured.flow is not None and name not in ("oracle", "raft"):
        assert float(measured.flow.abs().max()) < 1e-3


@every_probe
def test_frames_that_cannot_be_measured_are_refused(name, probes, drawn):
    if name == "oracle":
        return
    with pytest.raises(InputError, match="divide 8-bit frames"):
        probes[name](drawn.frames * 255, FPS, drawn.masks)
    with pytest.raises(InputError, match="finite numbers"):
        probes[name](drawn.frames * float("nan"), FPS, drawn.masks)


def test_a_combined_probe_measures_what_its_parts_measure():
    probe = Combined(LucasKanade(), features=PatchFeatures())
    assert probe.name == "lucas_kanade+patches"
    assert probe.measures == {"flow", "confidence", "noise", "features"}
    assert probe.differentiable
    assert not Combined(PROBES["dis"](), features=PatchFeatures()).differentiable
    with pytest.raises(InputError, match="measures nothing"):
        Combined()


def test_an_oracle_knows_only_measurable_things_of_the_clips_it_was_given(drawn):
    with pytest.raises(InputError, match="cannot know 'mass'"):
        Oracle(mass=torch.ones(2))
    with pytest.raises(InputError, match="knows flow of 1 clips"):
        Oracle(flow=drawn.flow[:1])(drawn.frames, FPS)
