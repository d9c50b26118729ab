"""Generate motions of people from texts: per motion a BVH, joints (.npz), SMPL parameters (.npz) and a video; a manifest.

Every motion has its own noise from (seed, id), whatever the batch. A stopped run continues from its manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from tqdm import tqdm

from visviva.configs.motion import MotionRecipe
from visviva.data.dataset import write_rows
from visviva.data.manifest import Manifest, output_folder
from visviva.data.motions.arrays import write_npz
from visviva.data.motions.bvh import write_bvh
from visviva.data.prompts import Prompt, read_prompts
from visviva.data.video import write_video
from visviva.errors import InputError
from visviva.eval.motion.measure import measure
from visviva.eval.motion.view import film
from visviva.models.motion.text import refuse_long, words
from visviva.pipelines.motion.consistency import AccelerationConsistency
from visviva.pipelines.motion.pipeline import TINY, MotionPipeline, load
from visviva.pipelines.motion.smpl import rigid, write_smpl
from visviva.pipelines.motion.steering import LawGuidance, Projection, verifier_of
from visviva.pipelines.posttrain.cache import weights_hash
from visviva.pipelines.posttrain.plan import key

TABLES = (".txt", ".jsonl", ".csv")
FPS = 20.0


@dataclass(frozen=True)
class Item:
    """One motion to make."""

    id: str
    stem: str
    caption: str
    seed: int


def generate(recipe: MotionRecipe) -> Path:
    """Generate every motion that is not there yet and return the output folder.

    Raises:
        InputError: no text, a model that is none, a folder begun with other settings.

    Example::

        generate(MotionRecipe(action="generate", files=["a person waves"], output="runs/waves"))
    """
    items = plan(recipe)
    output = output_folder(recipe.output)
    pipeline = load(recipe.model)
    refuse_long(pipeline.text_encoder, pipeline.tokenizer, [item.caption for item in items])
    unknown = pipeline.unknown_words([item.caption for item in items])
    for item in items:
        said = words(item.caption)
        if said and set(said) <= set(unknown):
            raise InputError(f"the model knows no word of {item.caption!r}; say it as 'a person jumps forward', in English")
    if unknown:
        _say(f"note: the model knows none of the words {', '.join(unknown)}; it reads the texts without them")
    for note in unlike_training(recipe):
        _say(note)
    with Manifest(output, request(recipe, pipeline)) as manifest:
        try:
            _fill(manifest, recipe, pipeline, items, unknown)
        finally:
            if not manifest.done:  # nothing was made with these settings, which others may follow
                manifest.path.unlink(missing_ok=True)
        rows = {row["id"]: row for row in Manifest.read(output)}
    write_rows(output / "metadata.jsonl", [rows[item.id] for item in items])
    _say(f"written: {len(items)} motions in {output / 'motions'}, {output / 'metadata.jsonl'}")
    return output


def unlike_training(recipe: MotionRecipe) -> list[str]:
    """Return notes on rates and lengths beyond those that the model was trained on, where its recipe stands beside it."""
    beside = (TINY if recipe.model == "tiny" else Path(recipe.model)) / "recipe.json"
    trained = json.loads(beside.read_text()).get("motion", {}) if beside.is_file() else {}
    if "rates" not in trained:
        return []
    fps = (recipe.frame_rate or FPS) / recipe.speed
    low, high, frames = min(trained["rates"]), max(trained["rates"]), round(recipe.seconds * fps)
    notes = []
    if not low <= fps <= high:
        notes.append(f"note: trained at {low:g} to {high:g} frames/s (over the speed), asked for {fps:g}: motions may jitter")
    if frames > 2 * trained["frames"]:
        notes.append(f"note: trained on {trained['frames']} frames at a time, asked for {frames}: feet may slide more")
    return notes


def _fill(
    manifest: Manifest, recipe: MotionRecipe, pipeline: MotionPipeline, items: Sequence[Item], unknown: Sequence[str]
) -> None:
    """Make the motions that the manifest does not have yet."""
    for item in items:
        row = manifest.done.get(item.id)
        if row is not None and (row["caption"], row["seed"]) != (item.caption, item.seed):
            raise InputError(
                f"the motion {item.id!r} in {str(manifest.folder)!r} was made from {row['caption']!r} with the seed "
                f"{row['seed']}; choose another output folder or another id"
            )
    todo = [item for item in items if item.id not in manifest.done]
    with tqdm(total=len(todo), desc="motions", disable=len(todo) < 2) as bar:
        for k in range(0, len(todo), recipe.batch_size):
            batch = todo[k : k + recipe.batch_size]
            for item, joints in zip(batch, make(recipe, pipeline, batch), strict=True):
                manifest.add(write(recipe, manifest.folder, item, joints, unknown))
                bar.update()


def plan(recipe: MotionRecipe) -> list[Item]:
    """Return the motions that the recipe asks for, each with its seed: the row's own, else one from (seed, id).

    Raises:
        InputError: no text, or one id for two motions.
    """
    prompts = [prompt for given in recipe.files for prompt in _prompts(given)]
    if not prompts:
        raise InputError('no text; give one or more: visviva motion generate "a person jumps forward"')
    items = []
    for prompt in prompts:
        for k in range(recipe.count):
            end = "" if k == 0 else f"-sample{k}"
            seed = prompt.seed if prompt.seed is not None and k == 0 else key(recipe.seed, "motion", 0, prompt.id + end)
            items.append(Item(prompt.id + end, prompt.file_stem + end, prompt.caption, seed))
    names = [item.id for item in items]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"the text or id {twice!r} is given twice; give it once with --count, or other ids")
    return items


def _prompts(given: str) -> list[Prompt]:
    """Return the rows of a table, or the text itself under a name made of its words."""
    if given.lower().endswith(TABLES):
        stem = Path(given).stem
        rows = read_prompts(given)
        return [Prompt(f"{stem}-{p.id}" if p.id.isdigit() else p.id, p.caption, seed=p.seed) for p in rows]
    if not given.strip():
        raise InputError("an empty text; say what the person does")
    if len(given) < 4096 and "\0" not in given and Path(given).exists():
        raise InputError(f"{given}: a file or folder, and no text; texts stand in files that end with {', '.join(TABLES)}")
    name = "-".join("".join(c if c.isalnum() else " " for c in given.lower()).split())
    if not name or len(name) > 60:  # cut short, two texts would share a name
        name = f"{name[:47]}-".lstrip("-") + hashlib.sha256(given.encode()).hexdigest()[:12]
    return [Prompt(name, given)]


def request(recipe: MotionRecipe, pipeline: MotionPipeline) -> dict[str, Any]:
    """Return everything that the motions depend on, beside text and seed."""
    return {
        "model": weights_hash([pipeline.transformer, pipeline.text_encoder])[:16],
        "seconds": recipe.seconds,
        "fps": recipe.frame_rate or FPS,
        "speed": recipe.speed,
        "sampler": recipe.sampler.model_dump(),
    }


@torch.no_grad()
def make(recipe: MotionRecipe, pipeline: MotionPipeline, batch: Sequence[Item]) -> Tensor:
    """Generate one batch; joints (B, T, 22, 3) [m], z up."""
    sampler = recipe.sampler
    guide = None
    if sampler.law_guidance > 0:
        guide = LawGuidance(pipeline.transformer, verifier_of(sampler.laws), scale=sampler.law_guidance)
    consistency = None
    if sampler.acceleration_consistency > 0:
        consistency = AccelerationConsistency(pipeline.transformer, sampler.acceleration_consistency)
    found = pipeline(
        [item.caption for item in batch],
        seconds=recipe.seconds,
        fps=recipe.frame_rate or FPS,
        speed=recipe.speed,
        seeds=[item.seed for item in batch],
        steps=sampler.steps,
        text_guidance=sampler.text_guidance,
        guide=guide,
        guided=sampler.guided,
        project=Projection(pipeline.transformer) if sampler.projected else None,
        projected=sampler.projected,
        consistency=consistency,
    )
    if not bool(found.joints.isfinite().all()):
        raise InputError("the model made joints that are not finite; use weaker guidance (sampler.text_guidance)")
    return found.joints


def write(recipe: MotionRecipe, output: Path, item: Item, joints: Tensor, unknown: Sequence[str]) -> dict[str, Any]:
    """Write one motion's files and return its line of the manifest."""
    fps, folder = recipe.frame_rate or FPS, output / "motions"
    motion, error = rigid(joints.float(), fps, item.id)
    write_npz(folder / f"{item.stem}.npz", motion)
    write_smpl(folder / f"{item.stem}-smpl.npz", motion)
    write_bvh(folder / f"{item.stem}.bvh", motion)
    measured = measure(motion)
    write_video(folder / f"{item.stem}.mp4", torch.from_numpy(film(measured)), fps, crf=20)
    names = {"joints": ".npz", "smpl": "-smpl.npz", "bvh": ".bvh", "video": ".mp4"}
    scores = {k: measured.scores[k].value for k in ("speed", "support", "penetrate", "el_violation")}
    return {
        "id": item.id,
        **{kind: f"motions/{item.stem}{end}" for kind, end in names.items()},
        "caption": item.caption,
        "not_understood": [word for word in unknown if word in words(item.caption)],
        "seed": item.seed,
        "fps": fps,
        "frames": len(motion),
        "speed_ratio": recipe.speed,
        "bones_fitted_m": round(error, 5),
        "scores": {k: round(v, 5) if v == v else None for k, v in scores.items()},
    }


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
