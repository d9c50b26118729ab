"""Calibrate laws: render scenes with known motion, true and violated, measure both, write one JSON table per law."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from visviva.configs.calibrate import CalibrateRecipe
from visviva.data.clip import Clip
from visviva.data.dataset import ClipDataset
from visviva.errors import InputError, closest
from visviva.eval.calibrate import calibrate, scenes_of, variants, write
from visviva.eval.eyes import Eyes
from visviva.eval.probe_error import gate_disagreement, probe_error
from visviva.eval.robustness import noise_floor, sweep
from visviva.models.probes import DIS, Extrapolation, LucasKanade, PatchFeatures, VAEFeatures
from visviva.physics.gate import Gate
from visviva.physics.laws import LAWS
from visviva.physics.measurement import Probe
from visviva.physics.motions import draw
from visviva.physics.sprites import Rendered, Sprites, cut

FPS = 32.0

APART = 600
"""From which seed on perfect clips for the alarm are drawn, beside those of the calibration (0) and the sweeps (500)."""


def run(recipe: CalibrateRecipe) -> Path:
    """Calibrate the recipe's laws and return the folder with their tables.

    Example::

        folder = run(CalibrateRecipe(output="calibration", clips=20))
    """
    for law in recipe.laws:
        if law not in LAWS:
            raise InputError(f"no law {law!r} to calibrate; the laws are {', '.join(LAWS)}" + closest(law, LAWS))
    folder = Path(recipe.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made a folder ({error.strerror}); choose another output") from error
    tables = _held(recipe, folder) if recipe.extend else _tables(recipe)
    if recipe.sweeps or recipe.extend:
        for law, found in _swept(recipe).items():
            tables[law]["robustness"] = found
    for law, table in tables.items():
        write(table, folder / f"{law}.json")
        tqdm.write(summary(table))
    return folder


def _tables(recipe: CalibrateRecipe) -> dict[str, dict[str, Any]]:
    if recipe.dataset and recipe.perfect:
        raise InputError(
            "perfect clips for the alarm are drawn, and a dataset's are not like them; leave perfect or dataset out"
        )
    scenes, clips, fps, source = _simulated(recipe) if recipe.dataset else _drawn(recipe)
    perfect = _scenes(recipe, recipe.perfect, APART)
    probes = {probe.name: probe_error(clips, fps, probe) for probe in (LucasKanade(), DIS()) if clips}
    if clips:
        probes["disagreement"] = gate_disagreement(clips, fps, LucasKanade(), Gate(DIS()))
    shown = tqdm(scenes, unit="batch", desc="calibrate")
    return calibrate(
        recipe.laws, scenes, fps, _eyes(recipe), shown=shown, perfect=perfect, source=source, seed=recipe.seed,
        command=_command(recipe), probes=probes,
    )  # fmt: skip


def _held(recipe: CalibrateRecipe, folder: Path) -> dict[str, dict[str, Any]]:
    """The tables that are there, to be extended."""
    tables = {}
    for law in recipe.laws:
        path = folder / f"{law}.json"
        if not path.is_file():
            raise InputError(f"{path}: there is no table to extend; calibrate the law first, without --extend")
        tables[law] = json.loads(path.read_text())
    return tables


def _swept(recipe: CalibrateRecipe) -> dict[str, dict[str, Any]]:
    """Noise floor and sweeps of each law's default form on drawn scenes."""
    laws = {name: next(iter(variants(name).values())) for name in recipe.laws}
    clips = max(recipe.sweeps, 4)
    base = {"size": recipe.size, "frames": recipe.frames, "seed": 1000 * recipe.seed + 500, "batch": recipe.batch}
    kinds = dict.fromkeys(scenes_of(law)[0] for law in laws.values())
    scenes = [draw(kind, clips, base["seed"], frames=recipe.frames, fps=FPS, size=recipe.size, objects=2) for kind in kinds]
    eyes = _eyes(recipe)
    noise = noise_floor(laws, scenes, FPS, eyes)
    swept = sweep(
        laws, clips, base, FPS, lambda shown: replace(eyes, shown=shown), lambda s: tqdm(s, unit="setting", desc="sweep")
    )
    common = {"command": _command(recipe), "base": {**base, "fps": FPS}}
    return {name: {**common, "scenes": scenes_of(laws[name])[0], "noise": noise[name], **swept[name]} for name in laws}


def summary(table: dict[str, Any]) -> str:
    """Return a calibration as text: per variant the value on perfect physics and the AUC of each declared violation."""
    lines = [f"{table['law']} on {table['clips']} clips"]
    for variant, content in table["variants"].items():
        for side in ("true", "estimated"):
            found = content[side]
            declared = {name: row["auc"] for name, row in found["violations"].items() if row["declared"]}
            areas = "  ".join(f"{name} {auc:.3f}" for name, auc in declared.items())
            lines.append(f"  {variant:<22} {side:<10} perfect p95 {found['floor']:<10} AUC  {areas}")
    return "\n".join(lines)


def _command(recipe: CalibrateRecipe) -> str:
    given = recipe.model_dump(exclude_defaults=True, exclude={"verb", "output"})
    options = "".join(f" --{key} {' '.join(value) if isinstance(value, list) else value}" for key, value in given.items())
    return f"visviva calibrate calibration{options}"


Material = tuple[list[Sprites], list[Rendered], float, dict[str, Any]]
"""Batches of scenes, the true clips with exact flow that belong to them, frames per second, provenance."""


def _drawn(recipe: CalibrateRecipe) -> Material:
    scenes = _scenes(recipe, recipe.clips)
    moves = [
        scene.render() for scene in scenes if scene.kind == "moves" and any("flow" in LAWS[x]().needs for x in recipe.laws)
    ]
    return scenes, moves, FPS, {"scenes": "drawn"}


def _scenes(recipe: CalibrateRecipe, clips: int, seed: int = 0) -> list[Sprites]:
    """Batches of drawn scenes of every kind that a law asks for; moves and falls with one and two objects in turn."""
    kinds = dict.fromkeys(kind for law in recipe.laws for kind in scenes_of(next(iter(variants(law).values()))))
    return [
        draw(
            kind, min(recipe.batch, clips - start), 1000 * recipe.seed + seed + i,
            frames=recipe.frames, fps=FPS, size=recipe.size, objects=1 + i % 2,
        )
        for kind in kinds
        for i, start in enumerate(range(0, clips, recipe.batch))
    ]  # fmt: skip


def _simulated(recipe: CalibrateRecipe) -> Material:
    """Batches of taken-apart simulated clips with equal numbers of objects."""
    dataset = ClipDataset(recipe.dataset or "", limit=recipe.clips)
    groups: dict[tuple[int, ...], list[Clip]] = defaultdict(list)
    for i in range(len(dataset)):
        clip = dataset[i]
        if clip.masks is None or clip.trajectory is None:
            raise InputError(f"{dataset.path(i)}: the clip has no masks and trajectory beside it; simulate it with arrays")
        groups[tuple(clip.masks.shape)].append(clip)
    rates = {clip.fps for clips in groups.values() for clip in clips}
    if len(rates) != 1:
        raise InputError(
            f"{recipe.dataset}: the clips have different frame rates {sorted(rates)}; calibrate each rate by itself"
        )
    batches = [clips[i : i + recipe.batch] for clips in groups.values() for i in range(0, len(clips), recipe.batch)]
    source = {"scenes": "simulated clips, taken apart and rendered again", "fingerprint": dataset.fingerprint}
    scenes = [_taken_apart(batch) for batch in batches]
    clips = [_as_they_are(batch) if all(clip.flow is not None for clip in batch) else scene.render()
             for batch, scene in zip(batches, scenes, strict=True)]  # fmt: skip
    return scenes, clips, rates.pop(), source


def _stacked(clips: list[Clip], name: str) -> torch.Tensor:
    return torch.stack([getattr(clip, name) for clip in clips])


def _taken_apart(clips: list[Clip]) -> Sprites:
    scene = cut(_stacked(clips, "frames"), _stacked(clips, "masks").float(), _stacked(clips, "trajectory").float())
    return scene.with_(contact=_stacked(clips, "contact")) if all(clip.contact is not None for clip in clips) else scene


def _as_they_are(clips: list[Clip]) -> Rendered:
    """The simulator's own frames and flow; masks without pixels whose flow is not known."""
    masks = _stacked(clips, "masks").float()
    if all(clip.flow_valid is not None for clip in clips):
        masks[:, :-1] *= _stacked(clips, "flow_valid")[:, :, None]
    return Rendered(_stacked(clips, "frames"), masks, _stacked(clips, "flow").float())


def _eyes(recipe: CalibrateRecipe) -> Eyes:
    surprise = Extrapolation() if any("surprise" in LAWS[law]().needs for law in recipe.laws) else None
    return Eyes(LucasKanade(), _features(recipe.features), surprise)


def _features(name: str) -> Probe:
    if name == "patches":
        return PatchFeatures()
    kind, _, model = name.partition(":")
    if kind != "vae" or not model:
        raise InputError(f"no features {name!r}; give 'patches', or 'vae:MODEL' with a model folder, hub id or 'tiny'")
    from visviva.models.backbones.wan import WanBackbone

    return VAEFeatures(WanBackbone.load(model).vae)
