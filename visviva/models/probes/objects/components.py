"""Connected regions of hard masks, batched on the device: labels by pointer jumping, no loop over images or pixels.

Every pixel starts with its own number; in each round it takes the largest number among its eight neighbours of the region and
then the number that *that* pixel has (pointer jumping, as in Shiloach and Vishkin 1982), so that a region of diameter d is
done after about log d rounds instead of d.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from visviva.errors import InputError


def components(hard: Bool[Tensor, "M H W"]) -> Int[Tensor, "M H W"]:
    """Return the labels of the 8-connected regions: 1 + the largest pixel index of the region, 0 outside.

    Raises:
        InputError: images of more than 2^24 pixels.

    Example::

        components(torch.tensor([[[True, False, True]]]))  # [[[1, 0, 3]]]
    """
    height, width = hard.shape[-2:]
    if height * width >= 2**24:
        raise InputError(f"images of {height} x {width} pixels are too large to label in float32; give at most 4000 x 4000")
    index = torch.arange(1, height * width + 1, device=hard.device).view(1, height, width)
    labels = torch.where(hard, index, 0)
    while True:
        rows = torch.nn.functional.max_pool2d(labels.float()[:, None], (1, 3), stride=1, padding=(0, 1))
        grown = torch.nn.functional.max_pool2d(rows, (3, 1), stride=1, padding=(1, 0))[:, 0].long() * hard
        flat = torch.nn.functional.pad(grown.flatten(1), (1, 0))
        jumped = flat.gather(1, flat)[:, 1:].view_as(labels)
        if torch.equal(jumped, labels):
            return labels
        labels = jumped


def regions(hard: Bool[Tensor, "M H W"], most: int, least_area: int = 9) -> Float[Tensor, "M K H W"]:
    """Return masks (0 or 1) of the ``most`` largest regions of each image, largest first; empty where there are fewer."""
    labels = components(hard)
    flat = labels.flatten(1)
    areas = torch.zeros(flat.shape[0], flat.shape[1] + 1, device=hard.device).scatter_add_(1, flat, hard.flatten(1).float())
    areas[:, 0] = 0
    area, label = areas.topk(min(most, areas.shape[1]), dim=1)
    found = labels[:, None] == label[:, :, None, None]
    return (found & (area >= least_area)[:, :, None, None]).float()
