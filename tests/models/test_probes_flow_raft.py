"""RAFT against independent facts: names and shapes of the public weights, a lookup by loops, torchvision where installed."""

import math

import pytest
import torch
from safetensors.torch import save_file

from visviva.errors import InputError
from visviva.models.probes import RAFT
from visviva.models.probes.flow import RAFTNetwork, load_raft
from visviva.models.probes.flow.correlation import AllPairs, local_correlation

RATE = torch.tensor([30.0])


def images(count=1, side=128, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(2, count, 3, side, side, generator=generator) - 1


def network(size="small", **options):
    torch.manual_seed(0)
    return RAFTNetwork(size, **options).eval()


SHAPES = {  # of the public weights, from the list of torchvision's raft_small and raft_large
    "small": {
        "feature_encoder.convnormrelu.0.weight": (32, 3, 7, 7),
        "feature_encoder.layer1.0.convnormrelu1.0.weight": (8, 32, 1, 1),
        "feature_encoder.layer2.0.convnormrelu2.0.weight": (16, 16, 3, 3),
        "feature_encoder.layer2.0.downsample.0.weight": (64, 32, 1, 1),
        "feature_encoder.layer3.1.convnormrelu3.0.weight": (96, 24, 1, 1),
        "feature_encoder.conv.weight": (128, 96, 1, 1),
        "context_encoder.conv.weight": (160, 96, 1, 1),
        "update_block.motion_encoder.convcorr1.0.weight": (96, 196, 1, 1),
        "update_block.motion_encoder.convflow1.0.weight": (64, 2, 7, 7),
        "update_block.motion_encoder.conv.0.weight": (80, 128, 3, 3),
        "update_block.recurrent_block.convgru1.convz.weight": (96, 242, 3, 3),
        "update_block.flow_head.conv2.weight": (2, 128, 3, 3),
    },
    "large": {
        "feature_encoder.layer2.0.convnormrelu1.0.weight": (96, 64, 3, 3),
        "feature_encoder.conv.bias": (256,),
        "context_encoder.convnormrelu.1.running_var": (64,),
        "context_encoder.layer3.0.downsample.1.num_batches_tracked": (),
        "update_block.motion_encoder.convcorr1.0.weight": (256, 324, 1, 1),
        "update_block.motion_encoder.convcorr2.0.weight": (192, 256, 3, 3),
        "update_block.motion_encoder.conv.0.weight": (126, 256, 3, 3),
        "update_block.recurrent_block.convgru1.convq.weight": (128, 384, 1, 5),
        "update_block.recurrent_block.convgru2.convr.weight": (128, 384, 5, 1),
        "mask_predictor.convrelu.0.weight": (256, 128, 3, 3),
        "mask_predictor.conv.weight": (576, 256, 1, 1),
    },
}


@pytest.mark.parametrize(("size", "parameters", "entries"), [("small", 990_162, 106), ("large", 5_257_536, 169)])
def test_names_and_shapes_are_those_of_the_public_weights(size, parameters, entries):
    raft = network(size)
    state = raft.state_dict()
    assert sum(p.numel() for p in raft.parameters()) == parameters
    assert len(state) == entries
    assert {name: tuple(state[name].shape) for name in SHAPES[size]} == SHAPES[size]
    assert not any(".layer1." in n and "downsample" in n for n in state)
    if size == "small":
        assert not any("convcorr2" in n or "convgru2" in n or "mask_predictor" in n for n in state)


def value(maps, x, y):
    """Bilinear value of a map at a real position, zero outside, by hand."""
    height, width = maps.shape
    total = 0.0
    for i, j in ((math.floor(y), math.floor(x)), (math.floor(y), math.floor(x) + 1)):
        for row in (i, i + 1):
            if 0 <= row < height and 0 <= j < width:
                total += float(maps[row, j]) * max(0.0, 1 - abs(x - j)) * max(0.0, 1 - abs(y - row))
    return total


@pytest.mark.parametrize("chunk", [None, 7])
def test_the_lookup_is_that_of_plain_loops(chunk):
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 1, 5, 6, 8, generator=generator)
    flow = 1.5 * torch.randn(1, 2, 6, 8, generator=generator)
    radius = 2
    found = AllPairs(first, second, 2, radius, chunk)(flow)
    coarse = (second[..., ::2, ::2] + second[..., 1::2, ::2] + second[..., ::2, 1::2] + second[..., 1::2, 1::2]) / 4
    for y, x in ((0, 0), (2, 5), (5, 7)):
        for level, target in enumerate((second, coarse)):
            scores = torch.einsum("c,chw->hw", first[0, :, y, x], target[0]) / math.sqrt(5)
            at = [(float(flow[0, a, y, x]) + (x, y)[a]) / 2**level for a in (0, 1)]
            wanted = [
                value(scores, at[0] + dx, at[1] + dy) for dx in range(-radius, radius + 1) for dy in range(-radius, radius + 1)
            ]
            assert found[0, level * 25 : (level + 1) * 25, y, x].tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(("height", "width", "radius"), [(5, 37, 3), (8, 8, 2), (3, 16, 1)])
def test_the_local_correlation_is_that_of_plain_loops(height, width, radius):
    generator = torch.Generator().manual_seed(2)
    first, second = torch.randn(2, 2, 4, height, width, generator=generator)
    around = torch.nn.functional.pad(second, (radius,) * 4)
    shifts = [(dy, dx) for dy in range(2 * radius + 1) for dx in range(2 * radius + 1)]
    wanted = torch.stack([(first * around[..., dy : dy + height, dx : dx + width]).mean(1) for dy, dx in shifts], 1)
    assert torch.allclose(local_correlation(first, second, radius), wanted, atol=1e-6)


def test_the_local_correlation_has_the_right_gradient():
    generator = torch.Generator().manual_seed(2)
    maps = [torch.randn(1, 1, 2, 18, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: local_correlation(a, b, 1).square().mean(1), maps)


@pytest.mark.parametrize("option", [{"checkpointing": True}, {"chunk": 100}])
def test_saving_memory_changes_neither_flow_nor_gradient(option):
    first, second = images()
    results = []
    for options in ({}, option):
        raft, leaf = network(**options), first.clone().requires_grad_()
        flow = raft(leaf, second, 1)[-1]
        results.append((flow.detach(), torch.autograd.grad(flow.square().sum(), leaf)[0]))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("chunk", [None, 3])
def test_the_lookup_has_the_right_gradient_in_maps_and_flow(chunk):
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 1, 2, 4, 4, generator=generator, dtype=torch.float64)
    flow = torch.randn(1, 2, 4, 4, generator=generator, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (first.clone(), second.clone(), flow)]
    assert torch.autograd.gradcheck(lambda a, b, at: AllPairs(a, b, 2, 1, chunk)(at).square().mean(1), inputs)


def test_without_detaching_the_flow_is_the_same_and_the_gradient_another():
    first, second = images(seed=3)
    results = []
    for detach in (True, False):
        leaf = first.clone().requires_grad_()
        flow = network(detach=detach)(leaf, second, 2)[-1]
        results.append((flow.detach(), torch.autograd.grad(flow.square().sum(), leaf)[0]))
    assert torch.equal(results[0][0], results[1][0])
    assert float((results[0][1] - results[1][1]).norm()) > 0.01 * float(results[1][1].norm())


@pytest.mark.parametrize(("size", "suffix"), [("small", ".pth"), ("small", ".safetensors"), ("large", ".pth")])
def test_weights_come_from_a_local_file_by_name(tmp_path, size, suffix):
    raft, file = network(size), tmp_path / f"raft_{size}{suffix}"
    torch.save(raft.state_dict(), file) if suffix == ".pth" else save_file(raft.state_dict(), file)
    loaded = load_raft(file)
    assert loaded.size == size
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(torch.equal(v, raft.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_files_that_do_not_fit_are_refused_in_one_sentence(tmp_path):
    state = network().state_dict()
    with pytest.raises(InputError, match="no such file"):
        load_raft(tmp_path / "absent.pth")
    missing = {k: v for k, v in state.items() if k != "feature_encoder.conv.bias"}
    odd = state | {"feature_encoder.conv.weight": torch.zeros(1, 2, 1, 1), "other": torch.zeros(1)}
    for weights, said in (
        (missing, "conv.bias is missing"),
        (odd, r"conv.weight has shape \(1, 2, 1, 1\), not \(128, 96, 1, 1\)"),
    ):
        save_file(weights, tmp_path / "wrong.safetensors")
        with pytest.raises(InputError, match=said):
            load_raft(tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=r"and \d+ more"):
        load_raft(tmp_path / "wrong.safetensors", "large")
    (tmp_path / "noise.safetensors").write_bytes(b"no weights at all")
    (tmp_path / "noise.pth").write_bytes(b"no weights at all")
    for name in ("noise.safetensors", "noise.pth"):
        with pytest.raises(InputError, match=r"no valid safetensors|no file of weights"):
            load_raft(tmp_path / name)


class Evil:
    """What a malicious pickle would run."""

    def __reduce__(self):
        return (print, ("code ran",))


def test_code_in_a_file_does_not_run(tmp_path, capsys):
    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="no file of weights alone"):
        load_raft(tmp_path / "evil.pth")
    assert "code ran" not in capsys.readouterr().out


def test_sizes_and_images_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="no size 'medium'"):
        RAFTNetwork("medium")
    with pytest.raises(InputError, match="chunk is 0"):
        RAFTNetwork("small", chunk=0)
    with pytest.raises(InputError, match="64 x 64"):
        network()(*images(side=64))


def test_the_probe_enlarges_small_frames_and_gives_back_their_size(tmp_path):
    save_file(network().state_dict(), tmp_path / "small.safetensors")
    frames = torch.rand(1, 2, 3, 36, 52, generator=torch.Generator().manual_seed(0))
    measured = RAFT(tmp_path / "small.safetensors", updates=1)(frames, RATE)
    assert measured.flow.shape == (1, 1, 2, 36, 52)
    assert measured.confidence.shape == (1, 1, 1, 36, 52)


@pytest.fixture(scope="module")
def torchvisions():
    """torchvision's RAFT module, with stand-ins for the compiled operators that its import misses on a CPU; else a skip."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield pytest.importorskip("torchvision.models.optical_flow", reason="torchvision is not installed")
    library._destroy()


@pytest.mark.parity
@pytest.mark.parametrize("size", ["small", "large"])
def test_the_flow_is_torchvisions(size, torchvisions):
    torch.manual_seed(0)
    theirs = getattr(torchvisions, f"raft_{size}")(weights=None).eval()
    ours = RAFTNetwork(size).eval()
    ours.load_state_dict(theirs.state_dict())
    first, second = images(2, 136, seed=5)
    with torch.no_grad():
        found, wanted = ours(first, second, 4), theirs(first, second, num_flow_updates=4)
    for mine, other in zip(found, wanted, strict=True):
        assert torch.allclose(mine, other, rtol=0, atol=1e-4 * float(other.abs().max()))
