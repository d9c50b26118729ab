"""Weights in bfloat16 are rounded once per step: as a step in float32 from the same weights, rounded at its end."""

import importlib

import pytest
import torch
from torch import nn

from visviva.optim import BY_NAME, Cautious, ClipGlobalNorm, SoftClip

EXTRAS = {"none": [], "cautious": [Cautious()], "clipped": [ClipGlobalNorm(1.0)], "soft": [SoftClip(0.9)]}
OPTIONS = {name: {"schedule": "svd"} for name in ("muon", "root", "namo", "namo_d", "fismo")} | {"sgdp": {"momentum": 0.9}}


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("direct", [False, True])
def test_narrow_weights_are_rounded_once(name, extra, direct, monkeypatch):
    if direct:
        monkeypatch.setitem(importlib.import_module("visviva.optim.optimizer").DIRECT, "cpu", 16)
    start, generator = torch.randn(24, 16).bfloat16(), torch.Generator().manual_seed(0)
    narrow, wide = (nn.Parameter(start.to(dtype)) for dtype in (torch.bfloat16, torch.float32))
    options = dict(lr=0.05, weight_decay=0.3, extra=EXTRAS[extra], **OPTIONS.get(name, {}))
    optimizers = [BY_NAME[name]([("a.weight", p)], **options) for p in (narrow, wide)]
    for _ in range(4):
        with torch.no_grad():
            wide.copy_(narrow)
        gradient = torch.randn(24, 16, generator=generator).bfloat16()
        for p, optimizer in zip((narrow, wide), optimizers, strict=True):
            p.grad = gradient.to(p.dtype)
            optimizer.step()
        assert torch.equal(narrow, wide.bfloat16())
