"""Validation clips: the same clips from the same noise before the first update and every so often after it.

They are measured with what the recipe lists apart from the training laws: laws read with OpenCV DIS, which no law trains
against, and trajectory metrics against the true clip. Files are encoded once and named in the log.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visviva.configs import posttrain as settings
from visviva.data.video import write_video
from visviva.errors import InputError, closest
from visviva.eval.newtonbench import FIVE, score_clip
from visviva.models.backbones.backbone import Backbone
from visviva.physics.laws import LAWS
from visviva.pipelines.posttrain import model
from visviva.pipelines.posttrain.batch import Batch, truth
from visviva.pipelines.posttrain.examples import Examples
from visviva.pipelines.posttrain.plan import key
from visviva.pipelines.posttrain.rollout import Rollout
from visviva.pipelines.posttrain.verifier import build, object_masks


class Validation:
    """The validation set with its precomputed conditions; built before the text encoder may be dropped."""

    def __init__(
        self,
        recipe: settings.PosttrainRecipe,
        backbone: Backbone,
        accelerator: Any,
        training: Examples,
        autocast: torch.dtype | None,
    ) -> None:
        self.recipe, self.backbone, self.accelerator = recipe, backbone, accelerator
        self.rollout = Rollout(backbone, recipe.sampler, clamp="hard", autocast=autocast)
        if recipe.validation.every == 0:
            return
        chosen = recipe.validation
        own = {"path": chosen.path, "prompts": "", "where": chosen.where}
        self.examples = Examples(recipe.data.model_copy(update=own)) if chosen.path else training
        self.count = min(chosen.clips, len(self.examples))
        laws = [m for m in chosen.metrics if m in LAWS]
        self.scores = [m for m in chosen.metrics if m not in LAWS]
        for name in self.scores:
            if name not in FIVE:
                known = [*LAWS, *FIVE]
                raise InputError(f"validation.metrics: no metric {name!r}; known: {', '.join(known)}{closest(name, known)}")
        probe = settings.Probe(flow="dis", features=recipe.reward.probe.features)
        terms = [settings.Law(name=name, options=self._options(name)) for name in laws]
        self.verifier = build(terms, probe, backbone.vae, allow_trivial=True, device=accelerator.device) if laws else None
        self.cache = model.conditions(backbone, self.examples, recipe, accelerator, False, "validation")

    def _options(self, name: str) -> dict[str, Any]:
        """A law is read with the options it is trained with, where it is."""
        return next((law.options for law in self.recipe.reward.laws if law.name == name), {})

    @torch.no_grad()
    def run(self, denoiser: Any, step: int) -> dict[str, float | str]:
        """Generate, write and measure the clips; return mean metrics and the paths. Every process must call it."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        rows: list[tuple[int, str, dict[str, float]]] = []
        for first in range(0, self.count, world):
            index = min(first + rank, self.count - 1)  # all processes generate equally often; the surplus is dropped
            batch = self._batch(index)
            frames = denoiser(partial(self.rollout.frames, batch))
            if first + rank < self.count:
                rows.append((index, self._write(frames[0], index, step), self._measure(frames, batch)))
        gathered = _gathered(self.accelerator, rows)
        names = sorted({n for _, _, values in gathered for n in values})
        means = {n: _mean([values.get(n, math.nan) for _, _, values in gathered]) for n in names}
        return {**means, **{f"clip/{index}": path for index, path, _ in gathered if path}}

    def _batch(self, index: int) -> Batch:
        data, device = self.recipe.data, self.accelerator.device
        seed = key(self.recipe.seed, "validation", index)
        known: dict[str, Any] = truth([self.examples[index]], device)
        return Batch(
            noise=self.backbone.noise([seed], data.frames, data.height, data.width),
            keys=[seed],
            **model.prepared([self.cache[index]], device),
            **known,
        )

    def _write(self, frames: Tensor, index: int, step: int) -> str:
        if not self.recipe.validation.video:
            return ""
        path = Path(self.recipe.output) / "validation" / f"{index:04d}-step-{step:08d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, frames.cpu(), self.examples[index].fps)
        return str(path)

    def _measure(self, frames: Tensor, batch: Batch) -> dict[str, float]:
        true = None if batch.masks is None or not self.backbone.image_to_video else batch.masks.float()
        masks = object_masks("none" if true is None else "track", frames, true)
        values: dict[str, float] = {}
        if self.verifier is not None:
            reference = None
            if any("reference" in term.law.needs for term in self.verifier.terms):
                if batch.frames is None or not self.backbone.image_to_video:
                    raise InputError("validation.metrics holds a law that needs true clips; remove it or set validation.path")
                reference = self.verifier.measure(batch.frames, batch.fps, masks=true)
            verdict = self.verifier.score(frames, batch.fps, masks, batch.contact, reference, batch.force)
            for name, residual in verdict.residuals.items():
                values[f"law/{name}"] = float(residual.value) if bool(residual.valid) else math.nan
            values |= {name: float(value) for name, value in verdict.diagnostics.items()}
        if self.scores:
            if masks is None or batch.masks is None:
                raise InputError(f"validation.metrics {self.scores[0]!r} needs true masks; validate on clips that have them")
            scored = score_clip(masks[0].cpu() > 0.5, batch.masks[0].cpu(), float(batch.fps[0]))
            values |= {name: scored.penalised[name].value for name in self.scores}
        return values


def _gathered(accelerator: Any, rows: list[Any]) -> list[Any]:
    if accelerator.num_processes == 1:
        return rows
    from accelerate.utils import gather_object

    return sorted(gather_object(rows))


def _mean(values: list[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan
