"""Generate clips in batches: prompts and first frames in; mp4 files, a manifest and metadata.jsonl out.

The clips are shared out over the processes of ``accelerate launch`` (or ``--num-processes``). Every clip has its own noise from
(recipe seed, id), so it is the same whatever the batch size, the number of processes and the order; only kernels that add in
another order for another batch size can change a rounding. A killed run continues from its manifest: see
`visviva.data.manifest`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from tqdm import tqdm

from visviva.configs.generate import GenerateRecipe, Judged
from visviva.data.clip import Clip
from visviva.data.dataset import write_rows
from visviva.data.fit import fit
from visviva.data.manifest import Manifest, output_folder
from visviva.data.prompts import Prompt, read_prompts
from visviva.data.video import write_video
from visviva.errors import InputError
from visviva.models.backbones import families
from visviva.models.backbones.backbone import Backbone
from visviva.models.backbones.condition import Condition
from visviva.models.backbones.lora import load_lora, lora_files, weight_files
from visviva.models.control import Force, read_forces, table
from visviva.models.guidance import PhysicsGuidance, Segment
from visviva.models.probes import MotionMasks, Moving, TrackedMasks
from visviva.pipelines.best_of import best_of
from visviva.pipelines.posttrain.cache import fingerprint, weights_hash
from visviva.pipelines.posttrain.plan import key
from visviva.pipelines.posttrain.verifier import build

WEEK = timedelta(days=7)
"""How long a process that has finished waits for the others."""


@dataclass(frozen=True)
class Item:
    """One clip to make: a prompt and the seed of its noise; ``tracked``: the true masks beside its source guide or rank it.

    ``forces``: what pushes; None where nothing is said of it.
    """

    id: str
    prompt: Prompt
    seed: int
    tracked: bool = False
    forces: tuple[Force, ...] | None = None

    @cached_property
    def condition(self) -> str:
        """A hash of everything about the item that its clip depends on: caption, seed, frame rate, and what its files hold."""
        source = self.prompt.source
        files = [] if source is None else [source, *([source.with_suffix(".npz")] if self.tracked else [])]
        held = [_content(file) for file in files]
        content = {"caption": self.prompt.caption, "files": held, "seed": self.seed, "fps": self.prompt.fps}
        return fingerprint(content | ({} if self.forces is None else {"forces": [str(f) for f in self.forces]}))[:16]


def _content(file: Path) -> str | None:
    """Return a hash of what a file holds, None if there is none."""
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@dataclass(frozen=True)
class Size:
    """Size of the clips to make: frames, height and width [px], and the frame rate where a row gives none [frames/s]."""

    frames: int
    height: int
    width: int
    fps: float


def run(recipe: GenerateRecipe) -> Path:
    """Generate every clip that is not there yet and return the output folder.

    Example::

        from visviva.configs.generate import GenerateRecipe
        from visviva.pipelines import generate

        generate.run(GenerateRecipe(prompts="prompts.jsonl", output="out", batch_size=8))
    """
    if not recipe.prompts:
        raise InputError("nothing to generate: give a .jsonl or .csv of prompts, or a folder of clips")
    state = PartialState(cpu=recipe.model.device == "cpu" or not torch.cuda.is_available(), timeout=WEEK)
    items = plan(recipe)
    output = output_folder(recipe.output)
    backbone = load(recipe, state.device)
    size = home(recipe, backbone)
    asked = request(recipe, backbone, size)
    if recipe.lora:
        load_lora(backbone, recipe.lora)
    if any(item.forces is not None for item in items):
        backbone.refuse_forces()
    with Manifest(output, asked, shard=state.process_index) as manifest:
        refuse_other_conditions(items, manifest)
        todo = [item for item in items if item.id not in manifest.done]
        state.wait_for_everyone()  # all have read the manifests before anyone adds to them
        mine = todo[state.process_index :: state.num_processes]
        with tqdm(total=len(mine), desc="clips", disable=not state.is_main_process) as bar:
            for batch in batches(recipe, mine, size):
                for item, frames, ranked in chosen(recipe, backbone, size, batch):
                    manifest.add(write(recipe, output, item, frames, size, manifest) | ranked)
                bar.update(len(batch))
    state.wait_for_everyone()
    if state.is_main_process:
        rows = {row["id"]: row for row in Manifest.read(output)}
        write_rows(output / "metadata.jsonl", [rows[item.id] for item in items])
    state.wait_for_everyone()
    return output


def plan(recipe: GenerateRecipe) -> list[Item]:
    """Return the clips that the recipe asks for, each with its seed: the row's own, else one from (recipe seed, id)."""
    used = [*([recipe.guidance] if recipe.guidance.scale > 0 else []), *([recipe.best] if recipe.best.of > 1 else [])]
    items, tracked = [], any(section.masks == "track" for section in used)
    for prompt in read_prompts(recipe.prompts, recipe.where, recipe.limit):
        forces = forces_of(recipe, prompt)
        for k in range(recipe.samples):
            name = prompt.id if k == 0 else f"{prompt.id}-sample{k}"
            seed = prompt.seed
            if seed is None or k > 0:
                seed = key(recipe.seed, "generate", seed or 0, name)
            items.append(Item(name, prompt, seed, tracked, forces))
    names = [item.id for item in items]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise InputError(f"{recipe.prompts}: the id {twice!r} is also the name of a further sample of another row; rename it")
    return items


def forces_of(recipe: GenerateRecipe, prompt: Prompt) -> tuple[Force, ...] | None:
    """Return the forces on a clip: the recipe's, else the row's own; None where neither says anything."""
    given = [*recipe.force, *([f"wind:{recipe.wind}"] if recipe.wind else [])]
    if given:
        return tuple(read_forces(given, "force"))
    if "forces" not in prompt.columns:
        return None
    return tuple(read_forces(prompt.columns["forces"], f"{recipe.prompts}: {prompt.id!r}"))


def load(recipe: GenerateRecipe, device: torch.device) -> Backbone:
    """Load the model, frozen, without adapters."""
    if recipe.lora:
        lora_files(recipe.lora)  # a missing file is said before the slow part
    backbone = families.load(recipe.model.path, dtype=getattr(torch, recipe.model.dtype), device=device)
    for network in backbone.networks().values():
        network.requires_grad_(False).eval()
    return backbone


def home(recipe: GenerateRecipe, backbone: Backbone) -> Size:
    """Return the size of the clips: the recipe's, and where it says nothing the one the model was trained on."""
    given = {"frames": recipe.frames, "height": recipe.height, "width": recipe.width, "fps": recipe.fps}
    own = dict(zip(given, backbone.home or (), strict=False))
    merged: dict[str, Any] = {name: own.get(name) if value is None else value for name, value in given.items()}
    unknown = [name for name, value in merged.items() if value is None]
    if unknown:
        raise InputError(f"{recipe.model.path}: the home size of this model is not known; give {', '.join(unknown)}")
    size = Size(**merged)
    backbone.latent_shape(1, size.frames, size.height, size.width)  # refuses what the model cannot make
    return size


def request(recipe: GenerateRecipe, backbone: Backbone, size: Size) -> dict[str, Any]:
    """Return everything that the clips depend on but what `Item.condition` covers, for the manifest.

    ``fps`` is the recipe's own; where it is None, the row's and the model's rates are part of condition and model.
    """
    guided = recipe.guidance.scale > 0
    networks = [*backbone.networks().values(), backbone.vae, backbone.text_encoder, backbone.image_encoder]
    networks += [] if backbone.text_encoder_2 is None else [backbone.text_encoder_2]
    adapters = b"".join(file.read_bytes() for file in weight_files(recipe.lora)) if recipe.lora else b""
    return {
        "model": weights_hash(networks)[:16],
        "lora": hashlib.sha256(adapters).hexdigest()[:16] if recipe.lora else None,
        "dtype": recipe.model.dtype,
        "size": [size.frames, size.height, size.width],
        "fps": recipe.fps,
        "negative": recipe.negative,
        "sampler": recipe.sampler.model_dump(),
        "several_forces": recipe.several_forces,
        "guidance": recipe.guidance.model_dump() if guided else None,
        "best": recipe.best.model_dump() if recipe.best.of > 1 else None,
        "crf": recipe.crf,
    }


def refuse_other_conditions(items: list[Item], manifest: Manifest) -> None:
    """Raise if a finished clip was made from another prompt, first frame, seed, frame rate or force than its id stands for."""
    for item in items:
        row = manifest.done.get(item.id)
        if row is not None and row["condition"] != item.condition:
            raise InputError(
                f"the clip {item.id!r} in {str(manifest.folder)!r} was made from another prompt, first frame, seed, fps "
                f"or force ({row['caption']!r}, seed {row['seed']}); choose another output folder or another id"
            )


def batches(recipe: GenerateRecipe, items: list[Item], size: Size) -> Iterator[list[Item]]:
    """Yield batches; items with and without a first frame, or with other numbers of tracked objects, do not share one."""
    groups: dict[tuple[bool, int], list[Item]] = {}
    for item in items:
        objects = len(first_masks(item, size)) if item.tracked else 0
        groups.setdefault((item.prompt.source is not None, objects), []).append(item)
    for group in groups.values():
        yield from (group[i : i + recipe.batch_size] for i in range(0, len(group), recipe.batch_size))


def chosen(
    recipe: GenerateRecipe, backbone: Backbone, size: Size, batch: list[Item]
) -> Iterator[tuple[Item, Tensor, dict[str, Any]]]:
    """Generate one batch; yield each item, its frames and, for best of N, all candidates' scores and which one was kept."""
    if recipe.best.of == 1:
        yield from ((item, frames, {}) for item, frames in zip(batch, make(recipe, backbone, size, batch), strict=True))
        return
    verifier = build(recipe.best.laws, recipe.best.probe, backbone.vae, device=backbone.device)
    condition, fps = encoded(recipe, backbone, size, batch), rates(recipe, backbone, size, batch)
    segment = segmenter(recipe.best, backbone, size, batch)

    def score(frames: Tensor) -> Tensor:
        frames = frames.to(backbone.device)
        masks = None if segment is None else segment(frames)
        return verifier.score(frames, fps, masks=masks).log_reward

    candidates = (make(recipe, backbone, size, batch, condition, k) for k in range(recipe.best.of))
    probe: Any = verifier.probe  # features come from the autoencoder, whose cache the decoder needs for itself
    kept, scores, which = best_of(candidates, score, ahead=probe.features is None)
    for i, item in enumerate(batch):
        yield item, kept[i], {"scores": [round(float(s), 6) for s in scores[:, i]], "chosen": int(which[i])}


@torch.no_grad()
def encoded(recipe: GenerateRecipe, backbone: Backbone, size: Size, batch: list[Item]) -> Condition:
    """Return the encoded prompts and first frames of one batch."""
    first = None
    if starts(recipe, backbone, batch):
        first = torch.stack([fit(item.prompt.first_frame(), size.height, size.width) for item in batch]).to(backbone.device)
    captions = [item.prompt.caption for item in batch]
    fps = [frame_rate(recipe, item, size) for item in batch]
    condition = backbone.condition(captions, first, frames=size.frames, negative=recipe.negative, fps=fps)
    if all(item.forces is None for item in batch):
        return condition
    tables = torch.stack([table(item.forces or ()) for item in batch])
    return replace(condition, forces=tables.to(backbone.device))


def starts(recipe: GenerateRecipe, backbone: Backbone, batch: list[Item]) -> bool:
    """Return whether the clips of a batch start from given first frames."""
    return batch[0].prompt.source is not None and (backbone.image_to_video or not Path(recipe.prompts).is_dir())


@torch.no_grad()
def make(
    recipe: GenerateRecipe,
    backbone: Backbone,
    size: Size,
    batch: list[Item],
    condition: Condition | None = None,
    candidate: int = 0,
) -> Tensor:
    """Generate one batch; frames (B, T, 3, H, W) in [0, 1] on the CPU.

    ``condition``: encoded before (`encoded`). ``candidate``: which of best of N; each but the first has noise of its own.
    """
    condition = encoded(recipe, backbone, size, batch) if condition is None else condition
    seeds = [key(recipe.seed, "candidate", item.seed, candidate) if candidate else item.seed for item in batch]
    noise = backbone.noise(seeds, size.frames, size.height, size.width)
    sampler = recipe.sampler
    latents = backbone.sample(
        condition,
        noise,
        steps=sampler.steps,
        shift=sampler.shift,
        guidance_scale=sampler.guidance_scale,
        guide=guide(recipe, backbone, size, batch, starts(recipe, backbone, batch)),
        composed=recipe.several_forces == "composed",
    )
    frames = backbone.decode(latents, clamp="hard").cpu()
    for item, clip in zip(batch, frames, strict=True):
        if not bool(torch.isfinite(clip).all()):
            raise InputError(f"clip {item.id!r}: the model made frames that are not finite numbers; try --model.dtype float32")
    return frames


def write(recipe: GenerateRecipe, output: Path, item: Item, frames: Tensor, size: Size, manifest: Manifest) -> dict[str, Any]:
    """Write one clip's file and return its line of metadata."""
    prompt = item.prompt
    fps = frame_rate(recipe, item, size)
    stem = prompt.file_stem if item.id == prompt.id else f"{prompt.file_stem}{item.id.removeprefix(prompt.id)}"
    name = f"clips/{stem}.mp4"
    write_video(output / name, frames, fps, crf=recipe.crf)
    return {
        **prompt.columns,
        "id": item.id,
        "file_name": name,
        "caption": prompt.caption,
        "fps": fps,
        "seed": item.seed,
        "source": None if prompt.source is None else os.path.relpath(prompt.source, output),
        "model": manifest.request["model"],
        "lora": manifest.request["lora"],
        "guided": recipe.guidance.scale > 0,
        "condition": item.condition,
        **({} if item.forces is None else {"forces": [str(force) for force in item.forces]}),
    }


def guide(
    recipe: GenerateRecipe, backbone: Backbone, size: Size, batch: list[Item], hold_first: bool
) -> PhysicsGuidance | None:
    """Return the physics guidance of one batch, or None where the recipe asks for none."""
    settings = recipe.guidance
    if settings.scale == 0:
        return None
    return PhysicsGuidance(
        build(settings.laws, settings.probe, backbone.vae, device=backbone.device),
        backbone.decode,
        rates(recipe, backbone, size, batch),
        steps=recipe.sampler.steps,
        last=settings.last,
        scale=settings.scale,
        inner=settings.inner,
        radius=settings.radius,
        segment=segmenter(settings, backbone, size, batch),
        hold_first=hold_first,
    )


def segmenter(settings: Judged, backbone: Backbone, size: Size, batch: list[Item]) -> Segment | None:
    """Return what finds the objects of one batch in its frames, None where whole frames are judged."""
    if settings.masks == "motion":
        return partial(MotionMasks(objects=settings.objects), masks=None)
    if settings.masks == "objects":
        return partial(Moving(objects=settings.objects), masks=None)
    if settings.masks == "track":
        first = torch.stack([first_masks(item, size) for item in batch]).unsqueeze(1).to(backbone.device)
        return partial(TrackedMasks(), masks=first)
    return None


def rates(recipe: GenerateRecipe, backbone: Backbone, size: Size, batch: list[Item]) -> Tensor:
    """Return the frame rates of one batch [frames/s], (B,)."""
    return torch.tensor([frame_rate(recipe, item, size) for item in batch], device=backbone.device)


def frame_rate(recipe: GenerateRecipe, item: Item, size: Size) -> float:
    """Return the frame rate of a clip [frames/s]: the recipe's, else the row's, else the model's own."""
    return recipe.fps or item.prompt.fps or size.fps


def first_masks(item: Item, size: Size) -> Tensor:
    """Return the true masks of a clip's objects in its first frame at the size of the clip to make, (N, H, W), 0 or 1."""
    source = item.prompt.source
    arrays = None if source is None else source.with_suffix(".npz")
    clip = None if source is None or arrays is None or not arrays.is_file() else Clip.read(source, max_frames=2)
    if clip is None or clip.masks is None:
        raise InputError(
            f"{item.id!r}: best.masks or guidance.masks is 'track', which needs the objects' true masks, and there is no "
            "array file with masks beside its clip; use 'motion', 'objects' or 'none'"
        )
    pictures = clip.masks[0].float().unsqueeze(1).expand(-1, 3, -1, -1)
    return (fit(pictures, size.height, size.width)[:, 0] > 0.5).float()
