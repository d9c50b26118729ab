"""Running the conservation scores (after Morpheus, a reconstruction) on clips: track the object, score its law, count discards.

The object is followed from its true first-frame mask where a clip has one (of several objects the first that is there), and
found as the one that moves farthest and smoothest where it has none, or enters later. A discarded clip (frozen, vanishing,
doubled) has no score of its own: the means over kept clips stand beside the discard rate, and ``*_all`` counts discarded and
unreadable clips as 0, so that nothing is won by that.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from visviva.data.clip import Clip
from visviva.errors import InputError
from visviva.eval.benchmarks.conservation import FLIGHTS, VERSION, Conservation, conservation
from visviva.eval.benchmarks.inputs import Inputs, failed, followed, scene
from visviva.eval.benchmarks.result import RECONSTRUCTION, ClipRow, Missing, Result, mean_score
from visviva.eval.collection import Item
from visviva.eval.track import Unmeasurable, track_object
from visviva.eval.trajectory import centroids
from visviva.models.probes.motion import MotionMasks

__all__ = ["NEEDS", "STANDING", "VERSION", "doubled", "run", "score"]

STANDING = RECONSTRUCTION
NEEDS = "--experiment free_flight or pendulum, or a field 'experiment' or 'primitive' in the rows"
NOTES = {
    "dynamical": "R^2 of the governing law, kept clips",
    "invariance": "how well invariants stay, kept clips",
    "dynamical_all": "the same, discarded clips count as 0",
    "invariance_all": "the same, discarded clips count as 0",
}


def run(inputs: Inputs) -> Result:
    """Score every clip of a known experiment."""
    items = inputs.items(paired=bool(inputs.reference))
    rows = [_row(item, inputs.experiment) for item in tqdm(items, desc="morpheus")]
    if not any("experiment" in r.labels for r in rows):
        raise Missing(f"no clip says what it shows: give {NEEDS}")
    scores = [
        mean_score(m, rows, "1", lower_is_better=False, note=note, statistics=inputs.statistics, within=(0, 1))
        for m, note in NOTES.items()
    ]
    moving = [ClipRow(r.key, r.scene, {"discarded": r.numbers["discarded"], "motion": r.motion}) for r in rows if r.numbers]
    scores.append(mean_score("discarded", moving, "1", lower_is_better=True, statistics=inputs.statistics, within=(0, 1)))
    note = "extent of the path over the image height; below 0.05 a clip is discarded as still"
    scores.append(mean_score("motion", moving, "H", lower_is_better=False, note=note, statistics=inputs.statistics))
    notes = ["formulas are ours: not the values of the paper's table, and not 'the Morpheus score'"]
    return Result("morpheus", VERSION, STANDING, scores, rows, {}, notes)


def score(clip: Clip, kind: str, first: Tensor | None = None) -> Conservation:
    """Track a clip's object and score it; ``first``: its true mask in the first frame (H, W), if known.

    Example::

        score(Clip.read("throw.mp4"), "free_flight").dynamical
    """
    times = np.arange(len(clip.frames)) / clip.fps
    height = clip.frames.shape[2]
    if first is not None:
        masks = followed(clip.frames, first[None, None])[:, 0]
        areas = masks.flatten(1).sum(1).double()
        areas[areas == 0] = torch.nan
        positions, area = centroids(masks).numpy(), areas.numpy()
    else:
        try:
            frames = (clip.frames * 255).round().to(torch.uint8)
            track = track_object(frames, torch.from_numpy(times))
            positions, area = track.positions, track.area
        except Unmeasurable as reason:
            return Conservation(discarded=str(reason), asked=len(times))
    return conservation(kind, positions, times, height, areas=area, doubled=doubled(clip.frames, positions))


def doubled(frames: Tensor, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return in which frames something else that moves looks like the tracked object: area within half and colour within 0.15.

    Args:
        frames: (T, 3, H, W) in [0, 1]; positions: the object's (T, 2) [px], NaN where it is not seen.
    """
    scale = min(1.0, 192 / min(frames.shape[-2:]))
    size = [max(16, round(n * scale)) for n in frames.shape[-2:]]
    small = functional.interpolate(frames, size=size, mode="area")
    masks = (MotionMasks(objects=4)(small[None], None)[0] > 0.5).double()
    area = masks.flatten(2).sum(2)
    colour = torch.einsum("tnhw,tchw->tnc", masks, small.double()) / area.clamp(min=1)[..., None]
    centre = torch.stack([centroids(masks[:, n] > 0) for n in range(masks.shape[1])], dim=1)
    apart = torch.linalg.vector_norm(centre - torch.from_numpy(positions)[:, None] * scale, dim=2).nan_to_num(nan=torch.inf)
    frame, own = torch.arange(len(masks)), apart.argmin(1)
    alike = (colour - colour[frame, own][:, None]).abs().amax(2) < 0.15
    ratio = area / area[frame, own].clamp(min=1)[:, None]
    other = (area > 0) & alike & (ratio > 1 / 1.5) & (ratio < 1.5)
    other[frame, own] = False
    return (other.any(1) & apart.isfinite().any(1)).numpy()


def _row(item: Item, experiment: str) -> ClipRow:
    lost = {"discarded": 1.0, "dynamical_all": 0.0, "invariance_all": 0.0}
    try:
        clip = item.clip()
    except InputError as error:
        return failed(item, error, lost)
    try:
        word = experiment or str(clip.meta.get("experiment") or item.labels.get("primitive") or "")
        kind = "free_flight" if word in FLIGHTS else word
        if kind not in ("free_flight", "pendulum"):
            raise InputError(f"no experiment that is known here ({word!r}): {NEEDS}")
        true = item.true() if item.true is not None else None
        masks = () if true is None or true.masks is None else true.masks[0]
        first = next((mask for mask in masks if bool(mask.any())), None)
        found = score(clip, kind, first)
    except InputError as error:
        return failed(item, error)
    kept = not found.discarded
    numbers = {"dynamical": found.dynamical, "invariance": found.invariance, "discarded": float(not kept)}
    numbers |= {f"{m}_all": numbers[m] if kept else 0.0 for m in ("dynamical", "invariance")} | found.invariants
    labels = {"experiment": kind, "discarded": found.discarded}
    return ClipRow(item.key, scene(item), numbers, found.extent, "", labels)
