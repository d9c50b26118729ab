"""The trainer of the motion model: the loop and the objectives that video models are post-trained with.

Motions are seen as clips of a flow model (`flow`), judged by laws of motion (`judge`). What an example is depends on the
method: a text alone where motions are generated and judged (reward_backprop, refl, grpo); a text with the features of a true
motion (sft); a text with a better and worse motion of the untouched model's own, ranked by the laws (dpo).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from visviva.configs.posttrain import PosttrainRecipe
from visviva.errors import InputError
from visviva.physics.motion_laws import MotionVerifier
from visviva.pipelines.motion.flow import MotionFlow
from visviva.pipelines.motion.judge import MotionJudge
from visviva.pipelines.posttrain.batch import Batch
from visviva.pipelines.posttrain.plan import key
from visviva.pipelines.posttrain.reward_backprop import RewardBackprop
from visviva.pipelines.posttrain.sft import Sft
from visviva.pipelines.posttrain.trainer import Trainer


@dataclass(frozen=True)
class Texts:
    """What is trained on: texts, and for flow matching the joints of a motion for each, (T, 22, 3), z up [m]."""

    captions: Sequence[str]
    motions: Sequence[Float[Tensor, "T 22 3"]] = ()

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def fingerprint(self) -> str:
        """A hash of texts and motions."""
        digest = hashlib.sha256(json.dumps(list(self.captions)).encode())
        for motion in self.motions:
            digest.update(motion.contiguous().numpy().tobytes())
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

    Raises:
        InputError: something in the recipe, the texts or the checkpoints cannot be used.
    """

    together = 64

    def __init__(
        self,
        recipe: PosttrainRecipe,
        flow: MotionFlow,
        texts: Texts,
        verifier: MotionVerifier,
        keep: float = 1.0,
        candidates: int = 6,
    ) -> None:
        self.examples, self.verifier, self.keep, self.candidates = texts, verifier, keep, candidates
        self.flow = flow
        super().__init__(recipe, flow)

    def read(self) -> None:
        """Refuse flow matching without motions."""
        if self.recipe.learns_from_clips and self.recipe.method != "dpo" and not self.examples.motions:
            raise InputError(f"method {self.recipe.method} learns from motions, and only texts were given")

    def encode(self) -> None:
        """Encode all texts; make the pairs of dpo."""
        captions = list(self.examples.captions)
        whole = self.flow.condition(captions, frames=self.recipe.data.frames)
        entries = [whole[i : i + 1].tensors() | {"fps": torch.tensor([self.flow.fps])} for i in range(len(captions))]
        for entry, motion in zip(entries, self.examples.motions, strict=False):
            entry["latents"] = self.flow.encode(motion[None].to(self.device))
        if self.recipe.method == "dpo":
            for i in tqdm(range(len(captions)), desc="ranking motions", unit="text", leave=False):
                entries[i]["latents"], entries[i]["losers"] = self.pair(whole[i : i + 1], i)
        self.cache = entries

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
        laws = {f"laws.{term.law.name}": term.weight for term in self.verifier.terms}
        return laws | {"keep": self.keep, "candidates": self.candidates}

    def write(self, weights: Mapping[str, Tensor], name: str) -> None:
        """Write the pipeline, whose networks are the trained ones."""
        self.flow.save(self.output / name)
