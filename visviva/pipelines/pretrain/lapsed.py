"""Clips that lapse: drawn scenes, half of them true, half of them broken in known frames, measured and cut into windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from visviva.data.dataset import ClipDataset
from visviva.errors import InputError
from visviva.eval.eyes import photographed
from visviva.models.localiser.windows import Windows, windows_of
from visviva.models.probes import Combined, LucasKanade, TrackedMasks
from visviva.physics.lapses import LAPSES
from visviva.physics.sprites import Sprites, cut, random_sprites

BLATANT = {"blink": 2.0, "swell": 1.2, "shake": 2.5}
SUBTLE = {"kick": 0.5, "hiccup": 1.0, "swell": 0.25, "shake": 0.5}
"""Lapses and their strengths (`visviva.physics.lapses`): what anyone sees, and what one has to measure."""

OBJECTS = 2
BATCH = 20
FRAMES = (17, 25, 33, 41)
RADII = ((4.0, 6.0), (5.0, 8.0), (7.0, 10.0))


@dataclass(frozen=True)
class Bags:
    """Bags of M clips with at most W windows each.

    ``windows`` (M, W, D), ``there`` (M, W), ``labels`` (M,) 1 = broken, ``lapsed`` windows (M, W), ``first`` frame of each
    window (M, W) and its object (M, W); ``wrong`` frames (M, T), ``frames`` (M,) of each clip. Windows are
    ``length`` frames long.
    """

    windows: Tensor
    there: Tensor
    labels: Tensor
    lapsed: Tensor
    first: Tensor
    objects: Tensor
    wrong: Tensor
    frames: Tensor
    length: int


def drawn(clips: int, seed: int, frames: int | None = None) -> Iterator[Sprites]:
    """Yield drawn scenes in batches of 20, one and two objects in turn: of ``frames`` frames, or of many lengths and sizes."""
    for batch in range(-(-clips // BATCH)):
        steps = frames or FRAMES[batch % len(FRAMES)]
        radius = (5.0, 8.0) if frames else RADII[batch // 2 % len(RADII)]
        yield random_sprites(BATCH, 1000 * seed + batch, frames=steps, radius=radius, objects=1 + batch % OBJECTS)


def simulated(folder: str, clips: int, skip: int = 0) -> Iterator[Sprites]:
    """Yield simulated clips of one object without contacts, taken apart, in batches of 20, after ``skip`` of them.

    Raises:
        InputError: the folder holds too few such clips.
    """
    data, found = ClipDataset(folder), []
    for i in range(len(data)):
        clip = data[i]
        free = clip.contact is None or not bool(clip.contact.any())
        if clip.masks is not None and clip.trajectory is not None and clip.masks.shape[1] == 1 and free:
            found.append(clip)
        if len(found) == skip + clips:
            break
    if len(found) < skip + clips:
        raise InputError(f"{folder}: has {len(found)} clips of one object in free motion; {skip + clips} are needed")
    for start in range(skip, skip + clips, BATCH):
        batch = found[start : start + BATCH]
        frames, masks, path = (torch.stack([getattr(c, n) for c in batch]) for n in ("frames", "masks", "trajectory"))
        yield cut(frames, masks.float(), path.float())


def bags(scenes: Iterable[Sprites], seed: int, blatant: int, subtle: int) -> Bags:
    """Break every second clip ``blatant`` + ``subtle`` times, and measure all from their pixels.

    The measurement is what a user has: 8-bit frames with grain, flow by Lucas-Kanade, masks followed from the first frame.
    """
    probe, parts = Combined(LucasKanade(), masks=TrackedMasks()), []
    generator = torch.Generator().manual_seed(seed)
    for number, scene in enumerate(tqdm(scenes, unit="batch", desc="lapsed clips")):
        broken = torch.arange(len(scene.trajectory)) % 2 == 1
        shown, wrong = _broken(scene, broken, {"blatant": blatant, "subtle": subtle}, generator)
        rendered = shown.render()
        with torch.no_grad():
            seen = photographed(rendered.frames, 1000 * seed + number)
            measured = probe(seen, torch.full((len(broken),), 32.0), rendered.masks[:, :1])
        parts.append((windows_of(measured), broken, wrong))
    width = max(found.values.shape[1] for found, _, _ in parts)
    steps = max(wrong.shape[1] for _, _, wrong in parts)
    columns = zip(*(_padded(*part, width, steps) for part in parts), strict=True)
    windows, there, labels, lapsed, first, objects, wrong, frames = (torch.cat(column) for column in columns)
    return Bags(windows, there, labels, lapsed, first, objects, wrong, frames, parts[0][0].length)


def _broken(scene: Sprites, broken: Tensor, counts: Mapping[str, int], generator: torch.Generator) -> tuple[Sprites, Tensor]:
    """Return the scene with lapses at random frames of the clips to be broken, and its wrong frames."""
    clips, frames = scene.trajectory.shape[:2]
    wrong = torch.zeros(clips, frames, dtype=torch.bool)
    for kinds, count in ((BLATANT, counts["blatant"]), (SUBTLE, counts["subtle"])):
        for _ in range(count):
            name = list(kinds)[int(torch.randint(len(kinds), (1,), generator=generator))]
            start = torch.randint(3, frames - 7, (clips,), generator=generator)
            start = torch.where(broken, start, 10 * frames)
            scene, here = LAPSES[name](scene, start, torch.full((clips,), kinds[name]))
            wrong |= here
    return scene, wrong


def _padded(found: Windows, broken: Tensor, wrong: Tensor, width: int, steps: int) -> tuple[Tensor, ...]:
    count = int(found.objects.max()) + 1
    lapsed = wrong.unfold(1, found.length, int(found.first[1] - found.first[0])).any(-1).repeat(1, count)
    more, late = width - lapsed.shape[1], steps - wrong.shape[1]
    pad = torch.nn.functional.pad
    values = pad(found.values, (0, 0, 0, more))
    first, objects = (pad(x.expand_as(lapsed), (0, more)) for x in (found.first, found.objects))
    frames = torch.full((len(broken),), wrong.shape[1])
    return (
        values,
        pad(found.there, (0, more)),
        broken.float(),
        pad(lapsed, (0, more)),
        first,
        objects,
        pad(wrong, (0, late)),
        frames,
    )
