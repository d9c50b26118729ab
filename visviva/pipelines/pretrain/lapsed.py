"""Clips that lapse: drawn scenes, half of them true, half of them broken in known frames, measured and cut into windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from visviva.eval.calibrate import photographed
from visviva.models.localiser.windows import Windows, windows_of
from visviva.models.probes import Combined, LucasKanade, TrackedMasks
from visviva.physics.lapses import LAPSES
from visviva.physics.sprites import Sprites, random_sprites

BLATANT = {"blink": 2.0, "swell": 1.2, "shake": 2.5}
SUBTLE = {"kick": 0.5, "hiccup": 1.0, "swell": 0.25, "shake": 0.5}
"""Lapses and their strengths (`visviva.physics.lapses`): what anyone sees, and what one has to measure."""

OBJECTS = 2
BATCH = 20


@dataclass(frozen=True)
class Bags:
    """Bags of M clips with W windows each (those of a missing second object are not there).

    ``windows`` (M, W, D), ``there`` (M, W), ``labels`` (M,) 1 = broken, ``wrong`` frames (M, T), ``lapsed`` windows (M, W);
    ``shape`` is one batch's `Windows`, for going back from windows to frames.
    """

    windows: Tensor
    there: Tensor
    labels: Tensor
    wrong: Tensor
    lapsed: Tensor
    shape: Windows


def bags(clips: int, seed: int, blatant: int, subtle: int, frames: int = 41, size: int = 64) -> Bags:
    """Draw clips in batches of 20, every second one broken ``blatant`` + ``subtle`` times, and measure them from their pixels.

    The measurement is what a user has: 8-bit frames with grain, flow by Lucas-Kanade, masks followed from the first frame.
    """
    probe, parts = Combined(LucasKanade(), masks=TrackedMasks()), []
    generator = torch.Generator().manual_seed(seed)
    for batch in tqdm(range(-(-clips // BATCH)), unit="batch", desc="lapsed clips"):
        scene = random_sprites(BATCH, 1000 * seed + batch, frames=frames, height=size, width=size, objects=1 + batch % OBJECTS)
        broken = torch.arange(BATCH) % 2 == 1
        shown, wrong = _broken(scene, broken, {"blatant": blatant, "subtle": subtle}, generator)
        drawn = shown.render()
        with torch.no_grad():
            seen = photographed(drawn.frames, 1000 * seed + batch)
            measured = probe(seen, torch.full((BATCH,), 32.0), drawn.masks[:, :1])
        parts.append((windows_of(measured), broken, wrong))
    shape = max((part[0] for part in parts), key=lambda windows: windows.values.shape[1])
    columns = zip(*(_padded(*part, shape) for part in parts), strict=True)
    windows, there, labels, wrong, lapsed = (torch.cat(column)[:clips] for column in columns)
    return Bags(windows, there, labels, wrong, lapsed, shape)


def _broken(scene: Sprites, broken: Tensor, counts: Mapping[str, int], generator: torch.Generator) -> tuple[Sprites, Tensor]:
    """Return the scene with lapses at random frames of the clips to be broken, and its wrong frames."""
    clips, frames = scene.trajectory.shape[:2]
    wrong = torch.zeros(clips, frames, dtype=torch.bool)
    for kinds, count in ((BLATANT, counts["blatant"]), (SUBTLE, counts["subtle"])):
        for _ in range(count):
            name = list(kinds)[int(torch.randint(len(kinds), (1,), generator=generator))]
            start = torch.randint(4, frames - 10, (clips,), generator=generator)
            start = torch.where(broken, start, 10 * frames)
            scene, here = LAPSES[name](scene, start, torch.full((clips,), kinds[name]))
            wrong |= here
    return scene, wrong


def _padded(found: Windows, broken: Tensor, wrong: Tensor, shape: Windows) -> tuple[Tensor, ...]:
    more = shape.values.shape[1] - found.values.shape[1]
    lapsed = wrong.unfold(1, found.length, int(found.first[1] - found.first[0])).any(-1).repeat(1, OBJECTS)
    lapsed = lapsed[:, : shape.values.shape[1]]
    values = torch.nn.functional.pad(found.values, (0, 0, 0, more))
    return values, torch.nn.functional.pad(found.there, (0, more)), broken.float(), wrong, lapsed
