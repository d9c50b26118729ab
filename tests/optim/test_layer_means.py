"""What MKOR's hooks take from a network: mean patches against unfolded ones, passes counted once each."""

import pytest
import torch
from mkor_models import D, network
from torch import nn

from visviva.errors import InputError
from visviva.optim.layer_means import mean_input
from visviva.optim.mkor import MKOR
from visviva.optim.sgd import SGDM


@pytest.mark.parametrize(
    "options",
    [
        dict(kernel_size=3),
        dict(kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)),
        dict(kernel_size=3, dilation=2, padding=2),
        dict(kernel_size=3, padding="same", padding_mode="reflect"),
        dict(kernel_size=(2, 3), padding=1, padding_mode="circular", stride=3),
    ],
)
def test_mean_patch_is_the_mean_of_unfolded_patches(options):
    layer = nn.Conv2d(3, 4, bias=False, **options).to(D)
    x = torch.randn(2, 3, 9, 8, dtype=D)
    ones = torch.ones(2, 4, *layer(x).shape[2:], dtype=D)
    (expected,) = torch.autograd.grad(layer(x), layer.weight, ones)  # sums the patches, for every output channel
    places = 2 * ones[0, 0].numel()
    assert torch.allclose(mean_input(layer, x), expected[0].flatten() / places, rtol=0, atol=1e-13)


def test_mean_patch_of_video_and_means_of_tokens():
    layer = nn.Conv3d(2, 3, (3, 1, 2), stride=(1, 2, 2), padding=(1, 0, 1), bias=False).to(D)
    x = torch.randn(2, 2, 4, 5, 6, dtype=D)
    out = layer(x)
    (expected,) = torch.autograd.grad(out, layer.weight, torch.ones_like(out))
    places = out[:, 0].numel()
    assert torch.allclose(mean_input(layer, x), expected[0].flatten() / places, rtol=0, atol=1e-13)
    tokens = torch.randn(2, 7, 5)
    assert torch.allclose(mean_input(nn.Linear(5, 2), tokens), tokens.mean((0, 1)))


def test_accumulated_and_checkpointed_passes_count_once_each():
    from torch.utils.checkpoint import checkpoint

    model = network()
    optimizer = MKOR(model, SGDM(model.parameters(), lr=0.1), refresh=1)
    x = torch.randn(4, 6, dtype=D, requires_grad=True)
    checkpoint(model, x, use_reentrant=True).sum().backward()
    with torch.no_grad():
        model(x)
    layer = optimizer.layers[0]
    assert layer.sums.count.item() == 1
    model(2 * x).sum().backward()
    assert layer.sums.count.item() == 2
    expected = torch.cat([3 * x.detach().mean(0), torch.full((1,), 2.0, dtype=D)])
    assert torch.allclose(layer.sums.a, expected, rtol=0, atol=1e-14)
    optimizer.zero_grad()
    assert layer.sums is None


def test_an_input_given_by_keyword_is_seen():
    class ByName(nn.Module):
        def __init__(self, named):
            super().__init__()
            self.layer, self.named = nn.Linear(6, 3).to(D), named

        def forward(self, x):
            return self.layer(input=x) if self.named else self.layer(x)

    ends = []
    for named in (False, True):
        torch.manual_seed(0)
        model = ByName(named)
        optimizer = MKOR(model, SGDM(model.parameters(), lr=0.1), refresh=1)
        for step in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 6, generator=torch.Generator().manual_seed(step)).to(D)).square().mean().backward()
            optimizer.step()
        ends.append(model.layer.weight.detach())
    assert torch.equal(*ends)


def test_an_input_by_another_name_is_refused():
    class Odd(nn.Linear):
        def forward(self, hidden):
            return super().forward(hidden)

    model = nn.ModuleDict({"odd": Odd(6, 3).to(D)})
    MKOR(model, SGDM(model.parameters(), lr=0.1))
    with pytest.raises(InputError, match=r"what layer odd takes in; it was called with hidden; pass the input first"):
        model["odd"](hidden=torch.randn(4, 6, dtype=D))
