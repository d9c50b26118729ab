"""Preference data from laws: which generated clips are worse than the true ones that they started from, and how much.

The ranking is verifiable and needs neither people nor a vision-language model: every clip is measured by the same probe and
scored by the same laws, ``exp(-weighted residuals)``. A law that could not be measured takes the score to zero, so a clip that
hides its object cannot be preferred.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from visviva.configs.prefer import PreferRecipe
from visviva.data.clip import Clip
from visviva.data.dataset import ClipDataset, write_rows
from visviva.data.files import read_text
from visviva.data.manifest import output_folder
from visviva.errors import InputError
from visviva.physics.verify import Verifier
from visviva.pipelines.posttrain.verifier import build, law_of, object_masks


def run(recipe: PreferRecipe) -> Path:
    """Score the recipe's clips, write metadata.jsonl and return the folder that holds it.

    Raises:
        InputError: nothing given, clips that were generated from no clip, scores that are none, or no pair left.

    Example::

        from visviva.configs.prefer import PreferRecipe
        from visviva.pipelines import prefer

        folder = prefer.run(PreferRecipe(generated="runs/generated", losers=2))
    """
    if not recipe.generated:
        raise InputError("nothing to score: give a folder of clips from 'visviva generate'")
    generated = ClipDataset(recipe.generated)
    groups = by_source(generated)
    semantic = _semantic(recipe.semantic)
    if recipe.probe.features in ("auto", "vae") and any("features" in law_of(law).needs for law in recipe.laws):
        raise InputError("a law needs appearance features; give probe.features: vjepa2:PATH (there is no autoencoder here)")
    verifier = build(recipe.laws, recipe.probe, None, device=_device(recipe.device))
    output, rows, ties, few = output_folder(recipe.output), [], 0, 0
    for source, members in tqdm(groups.items(), desc="groups", disable=len(groups) < 2):
        row, tied = pair(source, members, generated, verifier, semantic, recipe, output)
        ties += tied
        few += row is None
        rows += [row] if row is not None else []
    if not rows:
        raise InputError(
            f"no pair is left of {len(groups)} true clips: {ties} generated clips are as good as the true one, or too few per "
            f"clip (losers = {recipe.losers}); generate more samples, or lower losers"
        )
    write_rows(output / "metadata.jsonl", rows)
    tqdm.write(
        f"prefer: {len(rows)} true clips with {recipe.losers} losers each in {output}; {few} left out, "
        f"{ties} clips tied or better"
    )
    return output


def by_source(generated: ClipDataset) -> dict[Path, list[int]]:
    """Return which generated clips started from which true clip."""
    groups: dict[Path, list[int]] = {}
    for index, row in enumerate(generated.rows):
        if not isinstance(row.get("source"), str) or not row["source"]:
            raise InputError(
                f"{generated.source}: clip {row['file_name']!r} has no 'source', the true clip that it started from; generate "
                "from a folder of clips"
            )
        groups.setdefault((generated.root / row["source"]).resolve(), []).append(index)
    return groups


def pair(
    source: Path, members: list[int], generated: ClipDataset, verifier: Verifier, semantic: dict[str, float],
    recipe: PreferRecipe, output: Path,
) -> tuple[dict[str, Any] | None, int]:  # fmt: skip
    """Return the row of one true clip with its worst losers (None: there are too few), and how many clips were no losers."""
    true, best = Clip.read(source), 1.0
    bests: dict[int, float] = {}  # of the true clip, over as many frames as a generated one has
    scored = []
    for index in members:
        row, clip = generated.rows[index], generated[index]
        _refuse_other_rate(clip, true, generated.path(index))
        frames = min(len(clip.frames), len(true.frames))
        if frames not in bests:
            bests[frames] = score(_first(true, frames), true, verifier)
        best = min(best, bests[frames])
        value = score(clip, true, verifier)
        if value < bests[frames] - recipe.margin:
            scored.append((value, generated.path(index), semantic.get(str(row.get("id")), 1.0)))
    ties = len(members) - len(scored)
    if len(scored) < recipe.losers:
        return None, ties
    worst = sorted(scored, key=lambda entry: entry[0])[: recipe.losers]
    kept = {k: v for k, v in generated.rows[members[0]].items() if k in ("scene", "primitive", "split")}
    return {
        **kept,
        "file_name": os.path.relpath(source, output),
        "caption": generated.rows[members[0]]["caption"],
        "fps": true.fps,
        "losers": [os.path.relpath(path, output) for _, path, _ in worst],
        "scores": [[round(meant, 4), round(value, 6)] for value, _, meant in worst],
        "score": round(best, 6),
    }, ties


def _first(clip: Clip, frames: int) -> Clip:
    return replace(clip, frames=clip.frames[:frames])


def _refuse_other_rate(clip: Clip, true: Clip, path: Path) -> None:
    """Refuse frames that are no more of the same time than the true clip's."""
    if abs(clip.fps - true.fps) > 1e-3 * true.fps:
        raise InputError(
            f"{path}: {clip.fps:g} frames/s, its true clip {true.fps:g}; laws would compare other times: generate with "
            f"fps: {true.fps:g}, or resample the true clips"
        )


def score(clip: Clip, true: Clip, verifier: Verifier) -> float:
    """Return ``exp(log_reward)`` of a clip in [0, 1], its objects followed from the true first mask where there is one."""
    frames = min(len(clip.frames), len(true.frames))
    shown, truth = clip.frames[None, :frames], true.frames[None, :frames]
    if shown.shape != truth.shape:
        raise InputError(
            f"a generated clip is {shown.shape[-1]} x {shown.shape[-2]}, its true clip {truth.shape[-1]} x {truth.shape[-2]}; "
            "generate at the true clips' size"
        )
    fps = torch.tensor([float(true.fps)])
    masks = None if true.masks is None else true.masks[None, :frames].float()

    def followed(pictures: Tensor) -> Tensor | None:
        return object_masks("motion" if masks is None else "track", pictures, masks)

    with torch.no_grad():
        reference = verifier.measure(truth, fps, followed(truth))
        return float(verifier.score(shown, fps, followed(shown), reference=reference).reward[0])


def _semantic(path: str) -> dict[str, float]:
    if not path:
        return {}
    try:
        found = json.loads(read_text(Path(path)))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON ({error.msg}); give an object of scores by id") from error
    if not isinstance(found, dict) or not all(isinstance(v, int | float) and 0 <= v <= 1 for v in found.values()):
        raise InputError(f"{path}: give an object of scores in [0, 1] by generated clip's id")
    return {str(name): float(value) for name, value in found.items()}


def _device(name: str) -> torch.device:
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
