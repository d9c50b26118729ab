"""How close clips are to their true clips pixel by pixel: PSNR, SSIM and, where local weights are given, LPIPS.

For reconstructions (autoencoder round trips, continuations): no evidence of physics, and a frozen clip of a quiet scene does
well, so motion stands beside them. Formulas in `visviva.eval.fidelity`; a clip's value is the mean over frames.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from tqdm import tqdm

from visviva.errors import InputError
from visviva.eval.benchmarks.inputs import Inputs, covered, covered_score, failed, scene
from visviva.eval.benchmarks.result import EXACT, ClipRow, Missing, Result, frame_change, mean_score, motion_score
from visviva.eval.collection import Item
from visviva.eval.fidelity import psnr, ssim
from visviva.eval.trajectory import aligned

VERSION = "1"
STANDING = EXACT
NEEDS = "--reference: a data set with the true clips (or clips whose rows name their source)"


def run(inputs: Inputs, lpips: Any = None) -> Result:
    """Compare clips with their true clips; ``lpips``: a `visviva.eval.benchmarks.lpips.LPIPS` with weights."""
    items = [item for item in inputs.items(paired=True) if item.true is not None]
    if not items:
        raise Missing(f"no clip has a truth: {NEEDS}")
    rows = [_row(item, lpips) for item in tqdm(items, desc="fidelity")]
    kinds: dict[str, tuple[str, bool, float, float]] = {"psnr": ("dB", False, 0, math.inf), "ssim": ("1", False, -1, 1)}
    kinds |= {} if lpips is None else {"lpips": ("1", True, 0, math.inf)}
    scores = [
        mean_score(m, rows, unit, lower_is_better=lower, statistics=inputs.statistics, within=(least, most))
        for m, (unit, lower, least, most) in kinds.items()
    ]
    skipped = {} if lpips is not None else {"lpips": "no weights: pass LPIPS.read(FILE) in Python; none are shipped"}
    scores += [covered_score(rows, inputs.statistics), motion_score(rows, inputs.statistics)]
    return Result("fidelity", VERSION, STANDING, scores, rows, skipped)


def _row(item: Item, lpips: Any) -> ClipRow:
    try:
        if item.true is None:
            raise InputError(f"{item.key}: has no ground truth; {NEEDS}")
        clip, true = item.clip(), item.true()
        index = aligned(len(clip.frames), clip.fps, len(true.frames), true.fps)
        frames, truth = clip.frames[: len(index)], true.frames[index]
        numbers = {"psnr": float(psnr(frames, truth).mean()), "ssim": float(_ssim(frames, truth))}
        numbers["covered"] = covered(len(clip.frames), clip.fps, len(true.frames), true.fps)
        if lpips is not None:
            numbers["lpips"] = float(lpips(frames, truth).mean())
    except InputError as error:
        return failed(item, error)
    return ClipRow(item.key, scene(item), numbers, frame_change(clip.frames))


def _ssim(frames: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean SSIM, some frames at a time (its moments take forty times the memory of a frame)."""
    return torch.cat([ssim(a, b) for a, b in zip(frames.split(16), truth.split(16), strict=True)]).mean()
