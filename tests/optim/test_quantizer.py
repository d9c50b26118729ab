"""Quantizers and packed weights against torch's formats and exhaustive lattices."""

import pytest
import torch
from eco_bases import LATTICE, SCALED, D
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.optim.quantized import QuantizedTensor
from visviva.optim.quantizer import FP8, Int, Lattice, noise, power_below


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SCALED), st.integers(1, 5), st.integers(1, 40), st.floats(-30, 30), st.booleans(), st.integers(0, 1000))
def test_lattice_points_survive_rounding_and_packing(quantizer, rows, columns, size, stochastic, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, rows, columns, generator=generator) * 2.0**size
    x[1, 0] = 0.0
    y = quantizer(x, torch.rand(x.shape, generator=generator) if stochastic else None)
    for again in (None, torch.rand(x.shape, generator=generator)):
        assert torch.equal(quantizer(y, again), y)
    packed = QuantizedTensor.pack(y[0], quantizer)
    assert torch.equal(QuantizedTensor.restore(packed.tensors(), packed.metadata()).unpack(), y[0])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([LATTICE, *SCALED]), st.integers(0, 1000))
def test_nearest_is_never_further_than_a_neighbour(quantizer, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 4, 32, generator=generator)
    nearest = (quantizer(x) - x).abs()
    for u in (0.0, 1 - 2.0**-24):
        assert (nearest <= (quantizer(x, torch.full_like(x, u)) - x).abs() + 1e-6).all()


def test_fp8_codes_are_torch_s():
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    every = every[torch.isfinite(every)]
    assert torch.equal(FP8().snap(every), every)
    y = torch.cat([torch.randn(20000) * torch.exp(3 * torch.randn(20000)), (every.sort()[0][1:] + every.sort()[0][:-1]) / 2])
    assert torch.equal(FP8().snap(y), y.clamp(-448, 448).to(torch.float8_e4m3fn).float())


def test_power_below():
    x = torch.tensor([0.0, 1.0, 1.999, 2.0, 3e-5, 1e30])
    for dtype in (torch.float32, D):
        assert power_below(x.to(dtype)).tolist() == [0.0, 1.0, 1.0, 2.0, 2.0**-16, 2.0**99]


@pytest.mark.parametrize("quantizer", [Lattice(0.5), Int("tensor"), FP8()])
def test_stochastic_rounding_is_right_on_average(quantizer):
    x = torch.linspace(-1, 1, 33, dtype=D).reshape(1, 1, 33)
    draws = torch.stack([quantizer(x, noise(x, torch.tensor(float(step)), seed=3)) for step in range(1000)])
    spread = draws.std(0)
    assert ((draws.mean(0) - x).abs() <= 4.5 * spread / 1000**0.5 + 1e-4).all()  # scales are rounded to 16 bits


def test_noise_is_uniform_and_of_every_tensor_its_own():
    x = torch.randn(2, 300, 300)
    u = noise(x, torch.tensor(1.0), 0)
    counts = torch.histc(u, 16, 0, 1)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 45  # chi^2, 15 degrees of freedom: 1e-4
    others = [u[1], noise(x, torch.tensor(2.0), 0)[0], noise(x, torch.tensor(1.0), 1)[0], u[0].roll(1, 1)]
    for other in others:
        assert abs(torch.corrcoef(torch.stack([u[0].flatten(), other.flatten()]))[0, 1]) < 0.015
    assert torch.equal(noise(x[1:], torch.tensor(1.0), 0)[0], u[1])


@pytest.mark.parametrize(
    ("quantizer", "bytes_per_weight"), [(FP8(), 1.0), (Int(), 1.0), (Int(bits=4), 0.5), (Int("block", bits=4), 0.5)]
)
def test_memory_of_packed_weights(quantizer, bytes_per_weight, tmp_path):
    from safetensors.torch import load_file, save_file

    x = torch.randn(256, 512)
    packed = QuantizedTensor.pack(x, quantizer)
    scales = {"tensor": 1, "row": 256, "block": 1024}[quantizer.per]
    assert packed.nbytes == x.numel() * bytes_per_weight + 4 * scales
    save_file(packed.tensors(), tmp_path / "w.safetensors", metadata=packed.metadata())
    assert (tmp_path / "w.safetensors").stat().st_size < packed.nbytes + 1000
    again = QuantizedTensor.restore(load_file(tmp_path / "w.safetensors"), packed.metadata())
    assert torch.equal(again.unpack(), packed.unpack())
