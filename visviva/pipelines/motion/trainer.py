"""The trainer of the motion model: the loop and the objectives that video models are post-trained with.

Motions are seen as clips of a flow model (`flow`), judged by laws of motion (`judge`). What an example is depends on the
method: a text alone where motions are generated and judged (reward_backprop, refl, grpo); a text with the features of a true
motion (sft); a text with a better and worse motion of the untouched model's own, ranked by the laws (dpo).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from visviva.configs.posttrain import PosttrainRecipe
from visviva.errors import InputError
from visviva.models.backbones.condition import Condition
from visviva.physics.motion_laws import MotionVerifier
from visviva.pipelines.motion.flow import MotionFlow, as_clip
from visviva.pipelines.motion.judge import MotionJudge
from visviva.pipelines.posttrain.batch import Batch
from visviva.pipelines.posttrain.plan import key
from visviva.pipelines.posttrain.reward_backprop import RewardBackprop
from visviva.pipelines.posttrain.rollout import finite
from visviva.pipelines.posttrain.sft import Sft
from visviva.pipelines.posttrain.trainer import Trainer


@dataclass(frozen=True)
class Texts:
    """What is trained on: texts, and for flow matching the features of a motion for each, (N, T, 263), not normalised."""

    captions: Sequence[str]
    features: Float[Tensor, "N T 263"] | None = None

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def fingerprint(self) -> str:
        """A hash of texts and features."""
        digest = hashlib.sha256(json.dumps(list(self.captions)).encode())
        if self.features is not None:
            digest.update(self.features.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


class MotionTrainer(Trainer):
    """Post-trains a motion pipeline.

    Args:
        recipe: the trainer's settings; those of pixels say nothing.
        flow: the model.
        texts: what is trained on.
        verifier: laws with their anchor.
        keep: weight of the distance to the untouched model (reward_backprop, refl).
        candidates: motions of each text among which dpo finds its pair.
        written: the recipe as the user has it, for ``recipe.json``; empty: the trainer's.

    Raises:
        InputError: something in the recipe, the texts or the checkpoints cannot be used.
    """

    at_once = 64

    def __init__(
        self,
        recipe: PosttrainRecipe,
        flow: MotionFlow,
        texts: Texts,
        verifier: MotionVerifier,
        keep: float = 1.0,
        candidates: int = 6,
        written: str = "",
    ) -> None:
        self.examples, self.verifier, self.keep, self.candidates, self.written = texts, verifier, keep, candidates, written
        self.flow = flow
        super().__init__(recipe, flow)

    def read(self) -> None:
        """Refuse what motions do not have; bring the model to where it is trained."""
        recipe = self.recipe
        if recipe.method == "sft" and self.examples.features is None:
            raise InputError("method sft learns from motions, and only texts were given")
        if recipe.method == "phygdpo" or recipe.grpo.mimicry is not None:
            raise InputError("phygdpo and grpo.mimicry are of videos; take dpo, or grpo without mimicry")
        if recipe.weights != "full" or recipe.ema.schedule != "none":
            raise InputError("the motion model is trained whole and without average: weights: full, ema.schedule: none")
        self.flow.pipeline.to(self.device)

    def encode(self) -> None:
        """Encode all texts; make the pairs of dpo."""
        captions, features = list(self.examples.captions), self.examples.features
        whole = self.conditions(captions)
        entries = [whole[i : i + 1].tensors() | {"fps": torch.tensor([self.flow.fps])} for i in range(len(captions))]
        if features is not None:
            clean = as_clip(self.flow.transformer.normalised(features.to(self.device)))
            for i, entry in enumerate(entries):
                entry["latents"] = clean[i : i + 1]
        if self.recipe.method == "dpo":
            main = self.accelerator.is_main_process
            for i in tqdm(range(len(captions)), desc="ranking motions", unit="text", leave=False, disable=not main):
                entries[i]["latents"], entries[i]["losers"] = self.pair(whole[i : i + 1], i)
        self.cache = entries

    def conditions(self, captions: list[str]) -> Condition:
        """Return all texts encoded, as long as the longest of them."""
        parts = [captions[k : k + 256] for k in range(0, len(captions), 256)]
        whole = Condition.cat([self.flow.condition(part, frames=self.recipe.data.frames) for part in parts])
        used = max(1, int(whole.tensors()["prompt_mask"].sum(1).max()))
        names = ("prompt", "negative", "prompt_mask", "negative_mask")
        return replace(whole, **{name: getattr(whole, name)[:, :used] for name in names})

    @torch.no_grad()
    def pair(self, condition: Any, index: int) -> tuple[Tensor, Tensor]:
        """Return the best of the untouched model's motions of a text by the laws, (1, C, T, 1, 1), and the worst, with an axis
        more.

        All are anchored on the one of median speed, so that the best is not the laziest.
        """
        seeds = [key(self.recipe.seed, "candidate", index, k) for k in range(self.candidates)]
        noise, sampler = self.flow.noise(seeds, self.recipe.data.frames, 1, 1), self.recipe.sampler
        many = condition.repeat(len(seeds))
        made = self.flow.sample(many, noise, steps=sampler.steps, guidance_scale=sampler.guidance_scale)
        joints = self.flow.decode(made)
        speed = joints.diff(dim=1).norm(dim=-1).mean((1, 2))
        middle = joints[speed.argsort()[len(seeds) // 2]]
        loss = self.verifier(joints, self.flow.fps, reference=middle.expand_as(joints)).loss
        best, worst = int(loss.argmin()), int(loss.argmax())
        if not bool(loss.isfinite().all()) or float(loss[best]) == float(loss[worst]):
            raise InputError(
                f"the text {self.examples.captions[index]!r}: the laws tell none of its {len(seeds)} motions from another; "
                "give other laws, or leave the text out"
            )
        return made[best : best + 1], made[worst : worst + 1][None]

    def make_judge(self, sft: Sft) -> RewardBackprop:
        """Return the judge of joints."""
        return MotionJudge(self.rollout, self.verifier, self.recipe.reward, self.keep, self.flow.fps)

    @torch.no_grad()
    def base_frames(self, batch: Batch) -> Tensor:
        """Return the untouched model's clean latents from the same noise and texts."""
        if self.base is None:
            raise InputError("the untouched model generates only where motions are judged")
        with self.base.applied(self.parameters):
            return self.model(lambda: self.rollout.latents(batch, 0))

    def known(self, clips: list[int]) -> dict[str, Any]:
        """Return nothing more than what was encoded."""
        return {}

    def further_identity(self) -> dict[str, Any]:
        """Return laws, anchors and candidates."""
        method = self.recipe.method
        found: dict[str, Any] = {"keep": self.keep} if method in ("reward_backprop", "refl") else {}
        found |= {"candidates": self.candidates} if method == "dpo" else {}
        return found | ({f"laws.{t.law.name}": t.weight for t in self.verifier.terms} if method != "sft" else {})

    def recipe_text(self) -> str:
        """Return the motion recipe."""
        return self.written or super().recipe_text()

    @torch.no_grad()
    def write(self, weights: Mapping[str, Tensor], name: str) -> None:
        """Write the pipeline, whose networks are the trained ones, if what it makes is finite."""
        some = self.batch(0, 0)
        finite(self.rollout.decode(self.rollout.latents(some)))
        try:
            self.flow.save(self.output / name)
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot write {str(self.output / name)!r}: {error}; free some space and start again") from error
