"""Training of the shipped violation localiser: drawn clips, half of them broken, known by clip labels alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from visviva.configs.pretrain import PretrainRecipe
from visviva.eval.reading import auc
from visviva.eval.run import provenance, write_json
from visviva.models.localiser import AttentionMIL, Masking, Mining, fit
from visviva.models.localiser.localiser import Localiser
from visviva.physics.sprites import Sprites
from visviva.pipelines.pretrain.lapsed import Bags, bags, drawn, simulated

TRUE_BELOW = 0.95
"""Share of true clips whose evidence stays below the level in every frame."""


def run(recipe: PretrainRecipe, out: Path) -> Path:
    """Train, hold the level on other true clips, check on a third set, write weights and card; returns the model's folder."""
    stage = recipe.localiser
    train, held, test = (bags(_scenes(recipe, part), 10 * recipe.seed + part, blatant=1, subtle=2) for part in range(3))
    mining = Mining(Masking(random=stage.random, high=stage.high), epochs=stage.epochs)
    network = fit(train.windows, train.there, train.labels, mining, seed=recipe.seed)
    localiser = Localiser(network, level_of(network, held), train.length)
    folder = out / "model"
    folder.mkdir(parents=True, exist_ok=True)
    localiser.save(folder / "model.safetensors")
    numbers = {name: check(network, found, localiser.level) for name, found in (("held_out", held), ("test", test))}
    write_json(folder / "numbers.json", {"numbers": numbers, "level": localiser.level, "made_with": provenance()})
    (folder / "recipe.json").write_text(recipe.model_dump_json(indent=1) + "\n")
    (folder / "README.md").write_text(_card(numbers["test"], stage.clips, localiser))
    files = sorted(f for f in folder.iterdir() if f.name != "SHA256SUMS")
    (folder / "SHA256SUMS").write_text("".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files))
    return folder


def _scenes(recipe: PretrainRecipe, part: int) -> Iterator[Sprites]:
    """Yield the scenes of the training, held-out or test part: drawn, and of a given folder a quarter simulated."""
    stage = recipe.localiser
    sizes = (stage.clips, stage.clips // 2, stage.clips // 2)
    share = sizes[part] // 4 if stage.simulated else 0
    yield from drawn(sizes[part] - share, 10 * recipe.seed + part)
    if stage.simulated:
        yield from simulated(stage.simulated, share, skip=sum(sizes[:part]) // 4)


@torch.no_grad()
def frame_evidence(network: AttentionMIL, clips: Bags) -> Tensor:
    """Return the evidence of every frame, shape (M, T): as `Windows.per_frame`, for clips of many lengths."""
    evidence = network(clips.windows, clips.there).evidence
    at = torch.arange(clips.wrong.shape[1])
    covers = (at >= clips.first[..., None]) & (at < clips.first[..., None] + clips.length) & clips.there[..., None]
    each = []
    for number in range(int(clips.objects.max()) + 1):
        of = covers & (clips.objects == number)[..., None]
        mean = torch.einsum("mw,mwt->mt", evidence, of.float()) / of.sum(1).clamp(min=1)
        each.append(torch.where(of.any(1), mean, -torch.inf))
    return torch.stack(each).amax(0)


def level_of(network: AttentionMIL, clips: Bags) -> float:
    """Return the evidence that `TRUE_BELOW` of the true clips never reach."""
    most = frame_evidence(network, clips)[clips.labels == 0].amax(1)
    return float(torch.quantile(most, TRUE_BELOW))


@torch.no_grad()
def check(network: AttentionMIL, clips: Bags, level: float) -> dict[str, float]:
    """Return clip AUC, window AUC within broken clips, false alarms on true clips, and hits on broken ones.

    ``frames_hit``: share of broken clips whose highest frame is within three frames of a wrong one.
    """
    found, broken = network(clips.windows, clips.there), clips.labels > 0
    inside = broken[:, None] & clips.there
    evidence = frame_evidence(network, clips)
    near = torch.nn.functional.max_pool1d(clips.wrong.float()[:, None], 7, 1, 3)[:, 0] > 0
    hit = near.gather(1, evidence.argmax(1, keepdim=True))[:, 0]
    return {
        "clip_auc": auc(found.logit[~broken], found.logit[broken]),
        "window_auc": auc(found.evidence[inside & ~clips.lapsed], found.evidence[inside & clips.lapsed]),
        "false_alarms": float((evidence[~broken] > level).any(1).double().mean()),
        "found": float((evidence[broken] > level).any(1).double().mean()),
        "frames_hit": float(hit[broken].double().mean()),
        "frames_hit_by_chance": float(near[broken].double().mean()),
    }


def _card(numbers: dict[str, float], clips: int, localiser: Localiser) -> str:
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value:.3f} |" for name, value in numbers.items())
    size = sum(p.numel() for p in localiser.network.parameters())
    return f"""# Violation localiser

Attention MIL with masked hard-instance mining (MHIM-MIL, arXiv 2307.15254) over windows of {localiser.length} frames of each
object, {size} weights. Trained on {clips} clips of 64 x 64 pixels and 17 to 41 frames (one or two textured discs and
boxes in uniformly accelerated motion, a quarter simulated and taken apart), half of them broken in a few frames
(`visviva.physics.lapses`); it was told which clips are broken, never where.
Measured from pixels: Lucas-Kanade flow, masks followed from the first frame's.

    visviva pretrain --config pretrain-localiser

On other clips of the same kinds (test seed; a chance hit is the share of frames near a wrong one):

| | |
|---|---|
{rows}

Limits: it knows objects in smooth flight or sliding, seen by a still camera. Contacts look like breaks to it. It says where,
not what. Data are drawn by the recipe; no recordings were used. Licence: as the package's.
"""
