"""Write a folder of simulated clips: many worlds at once, on several processes, continued where it was stopped.

Every clip depends on the settings and its own index alone, so the number of processes and the batch size change
nothing. A finished clip is recorded in the folder's manifest; ``metadata.jsonl`` is written when all are there.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from visviva.configs.simulate import SimulateRecipe
from visviva.data.dataset import write_rows
from visviva.data.manifest import Manifest
from visviva.data.scenes.simulation import Shot, Slot, plan, shoot
from visviva.errors import InputError
from visviva.physics.quiet import quiet

Row = dict[str, Any]


def run(recipe: SimulateRecipe) -> Path:
    """Simulate the recipe's clips and return the folder that holds ``metadata.jsonl``.

    Example::

        folder = run(SimulateRecipe(output="data/train", clips=200))
        clips = ClipDataset(folder)
    """
    with quiet():
        return _run(recipe)


def _run(recipe: SimulateRecipe) -> Path:
    folder = Path(recipe.output)
    try:
        (folder / "clips").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made a folder ({error.strerror}); choose another output") from error
    request = recipe.model_dump(exclude={"output", "clips", "workers", "batch", "device"})
    with Manifest(folder, request) as manifest:
        missing = [i for i in range(recipe.clips) if _id(i) not in manifest.done]
        with tqdm(total=recipe.clips, initial=recipe.clips - len(missing), unit="clip", desc="simulate") as bar:
            for rows in _rows(recipe, missing):
                for row in rows:
                    manifest.add(row)
                bar.update(len(rows))
        done = manifest.done
    write_rows(folder / "metadata.jsonl", [_public(done[_id(i)]) for i in range(recipe.clips)])
    return folder


def _id(index: int) -> str:
    return f"{index:06d}"


def _public(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "id"}


def _shot(recipe: SimulateRecipe) -> Shot:
    arrays = recipe.arrays == "all"
    size = (recipe.height, recipe.width)
    return Shot(
        size, recipe.frames, recipe.fps, recipe.objects, recipe.split, recipe.seed, recipe.device, arrays, recipe.renderer
    )


def _rows(recipe: SimulateRecipe, missing: list[int]) -> Iterator[list[Row]]:
    batches = plan(_shot(recipe), recipe.primitives, missing, recipe.batch)
    workers = min(recipe.workers or _default_workers(recipe.device), len(batches))
    if workers <= 1:
        for batch in batches:
            yield _write(recipe, batch)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(_write, [recipe] * len(batches), batches)


def _default_workers(device: str) -> int:
    return min(len(os.sched_getaffinity(0)), 4) if device == "cpu" else 1


def _write(recipe: SimulateRecipe, batch: list[Slot]) -> list[Row]:
    rows = []
    with quiet():  # each process has its own level
        for index, clip in shoot(_shot(recipe), batch):
            row = clip.write(recipe.output, f"clips/{_id(index)}", arrays=recipe.arrays, crf=recipe.crf)
            rows.append({"id": _id(index), **row})
    return rows
