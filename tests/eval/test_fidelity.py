"""PSNR and SSIM: golden numbers, identities, bad input."""

from __future__ import annotations

import pytest
import torch

from visviva.errors import InputError
from visviva.eval.fidelity import psnr, ssim


def images():
    y, x = torch.meshgrid(torch.arange(32, dtype=torch.float64), torch.arange(40, dtype=torch.float64), indexing="ij")
    first = ((7 * x + 3 * y) % 256) / 255
    return first[None], (first + 0.1 * torch.sin(x * y / 9)).clamp(0, 1)[None]


@pytest.mark.parity
def test_golden_numbers():
    a, b = images()
    assert float(ssim(a, b)) == pytest.approx(0.610372688, abs=5e-10)
    assert float(psnr(a, b)) == pytest.approx(23.46578274, abs=5e-9)


def test_an_image_against_itself():
    a, _ = images()
    assert float(ssim(a, a)) == pytest.approx(1)
    assert float(psnr(a, a)) == 100


def test_closed_form_of_psnr_and_one_value_per_image():
    frames = torch.rand(2, 5, 3, 16, 16) * 0.5
    assert psnr(frames + 0.1, frames).shape == (2, 5)
    assert float((psnr(frames + 0.1, frames) - 20).abs().max()) < 1e-4
    assert ssim(frames, frames).shape == (2, 5)


def test_ssim_is_the_mean_over_channels_and_symmetric():
    a, b = torch.rand(3, 20, 20), torch.rand(3, 20, 20)
    each = torch.stack([ssim(a[c : c + 1], b[c : c + 1]) for c in range(3)])
    assert float(ssim(a, b)) == pytest.approx(float(each.mean()))
    assert float(ssim(a, b)) == pytest.approx(float(ssim(b, a)))


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.rand(3, 16, 16), torch.rand(3, 16, 20), "cannot be compared"),
        (torch.rand(3, 8, 16), torch.rand(3, 8, 16), "at least 11x11"),
        (torch.full((3, 16, 16), float("nan")), torch.rand(3, 16, 16), "not finite"),
    ],
)
def test_bad_input_gets_one_sentence(a, b, words):
    with pytest.raises(InputError, match=words):
        ssim(a, b)
