"""LPIPS v0.1 (arXiv 1801.03924) from local weights: perceptual distance of images; lower is better, 0 for equal ones.

    d = sum over stages of mean over pixels of sum_c w_c (f_c / |f| - g_c / |g|)^2

with f, g a stage's features of the two images in [-1, 1], shifted and scaled, w the learned non-negative weights. The trunk is
AlexNet or VGG-16. No weights are shipped and none are downloaded; `LPIPS.read` takes one safetensors file with the trunk's
convolutions in torchvision's names (``features.0.weight``) and the five weights in those of the published package
(``lin0.model.1.weight``). Not tested against published weights here: structure and algebra only.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from visviva.errors import InputError

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
Step = tuple[int, int, int, int] | str
ALEX: list[Step] = [(64, 11, 4, 2), "pool", (192, 5, 1, 2), "pool", (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)]
VGG: list[Step] = [
    "pool" if width == 0 else (width, 3, 1, 1)
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
]
STAGES = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
"""Layers of the trunk after which features are compared."""


class LPIPS(nn.Module):
    """The distance; random until weights are read.

    Example::

        LPIPS.read("weights/lpips-alex.safetensors", "alex")(frames, true).mean()
    """

    def __init__(self, trunk: str = "alex") -> None:
        super().__init__()
        if trunk not in STAGES:
            raise InputError(f"no trunk {trunk!r}; LPIPS has 'alex' and 'vgg'")
        self.features, self.stages = _trunk(trunk), STAGES[trunk]
        widths = (64, 192, 384, 256, 256) if trunk == "alex" else (64, 128, 256, 512, 512)
        self.weights = nn.ParameterList([nn.Parameter(torch.rand(1, n, 1, 1)) for n in widths])
        self.requires_grad_(False).eval()

    @classmethod
    def read(cls, path: str | Path, trunk: str = "alex") -> LPIPS:
        """Read trunk and weights from one safetensors file.

        Raises:
            InputError: no such file, or names or shapes that do not fit.
        """
        from safetensors.torch import load_file

        if not Path(path).is_file():
            raise InputError(f"no LPIPS weights {str(path)!r}; give a safetensors file with trunk and 'lin' weights")
        model, stored = cls(trunk), load_file(path)
        renamed = {f"weights.{k}": stored.pop(f"lin{k}.model.1.weight") for k in range(5) if f"lin{k}.model.1.weight" in stored}
        wanted = {k: v.shape for k, v in model.state_dict().items()}
        given = {k: v for k, v in (stored | renamed).items() if k in wanted}
        bad = [k for k, shape in wanted.items() if k not in given or given[k].shape != shape]
        if bad:
            raise InputError(f"{path}: does not hold {', '.join(bad[:3])} of LPIPS with trunk {trunk!r}; export both parts")
        model.load_state_dict(given)
        return model

    @torch.no_grad()
    def forward(self, frames: Float[Tensor, "T 3 H W"], true: Float[Tensor, "T 3 H W"]) -> Float[Tensor, " T"]:
        """Return the distance per image; images in [0, 1]."""
        shift, scale = (frames.new_tensor(x).view(3, 1, 1) for x in (SHIFT, SCALE))
        one, two = ((2 * x - 1 - shift) / scale for x in (frames, true))
        total = frames.new_zeros(len(frames))
        for index, layer in enumerate(self.features):
            one, two = layer(one), layer(two)
            if index in self.stages:
                weight = self.weights[self.stages.index(index)]
                total = total + (weight * (_unit(one) - _unit(two)).square()).sum(1).mean((1, 2))
        return total


def _unit(features: Tensor) -> Tensor:
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)


def _trunk(name: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = 3
    for step in ALEX if name == "alex" else VGG:
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(3, 2) if name == "alex" else nn.MaxPool2d(2, 2))
            continue
        out, kernel, stride, pad = step
        layers += [nn.Conv2d(width, out, kernel, stride, pad), nn.ReLU()]
        width = out
    return nn.Sequential(*layers)
