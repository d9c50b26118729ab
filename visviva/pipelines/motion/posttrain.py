"""Post-train the motion model, as video models are: the same loop and objectives, laws of motion in place of laws of frames.

- ``reward_backprop``: gradients of the laws through the last sampler steps (DRaFT-K, Clark et al., arXiv 2309.17400).
- ``refl``: the same through one late predicted motion (ImageReward, arXiv 2304.05977).
- ``grpo``: groups of motions ranked by the laws, on the stochastic sampler of the flow (Flow-GRPO, arXiv 2505.05470).
- ``dpo``: the better of the untouched model's own motions before the worse, by the laws (Diffusion-DPO, arXiv 2311.12908).
- ``sft``: flow matching on motions, the control.

The loss of the first three holds the laws, an anchor of liveliness, and for the first two the distance to the untouched model
(`visviva.pipelines.motion.judge`). The network is small enough to be trained whole. Text and noise of every update follow from
(seed, update). The result is a motion model like any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visviva.configs.motion import MotionPosttrain, MotionRecipe
from visviva.configs.posttrain import Data, Ema, Monitor, PosttrainRecipe, Preference, Reward, Sampler, Sft, Validation
from visviva.data.manifest import output_folder
from visviva.errors import InputError
from visviva.eval.run import provenance, write_json
from visviva.models.motion.text import refuse_long
from visviva.physics.motion_laws import MOTION_LAWS, Liveliness, MotionTerm, MotionVerifier
from visviva.pipelines.motion.flow import MotionFlow
from visviva.pipelines.motion.generate import plan
from visviva.pipelines.motion.pipeline import MotionPipeline, load
from visviva.pipelines.motion.steering import verifier_of
from visviva.pipelines.motion.trainer import MotionTrainer, Texts
from visviva.pipelines.posttrain.parallel import leave
from visviva.pipelines.posttrain.plan import key
from visviva.pipelines.pretrain.motions import humanml3d, simulated, windows

FPS = 20.0
CHECKED = 32
"""Motions of the comparison before and after, from noise that training does not see."""


def posttrain(recipe: MotionRecipe) -> Path:
    """Post-train the recipe's model and return the output folder: ``model``, ``metrics.jsonl``, ``comparison.json``.

    A stopped run continues from its last checkpoint.

    Raises:
        InputError: no such model, an unknown law, laws without an anchor, a folder begun with other settings, weights that
            training made useless.

    Example::

        posttrain(MotionRecipe(action="posttrain", output="runs/obeys"))
    """
    stage, out = recipe.posttrain, output_folder(recipe.output)
    verifier = laws(stage)
    pipeline, untouched = load(recipe.model), load(recipe.model)
    check(recipe, pipeline)
    texts = examples(recipe)
    if stage.method != "sft":
        refuse_long(pipeline.text_encoder, pipeline.tokenizer, texts.captions)
    flow = MotionFlow(pipeline, FPS, cut=stage.method == "sft")
    try:
        made = settings(recipe)
        made.check()
        written = recipe.model_dump_json(indent=1)
        trainer = MotionTrainer(made, flow, texts, verifier, stage.keep, stage.candidates, written)
        trainer.run()
        pipeline.transformer.requires_grad_(False).eval()
        if trainer.accelerator.is_main_process:
            untouched.to(trainer.device)
            write_json(out / "comparison.json", comparison(recipe, pipeline, untouched, texts.captions))
    except InputError as error:
        error.args = (as_written(str(error)),)
        raise
    finally:
        leave()
    return out


def laws(stage: MotionPosttrain) -> MotionVerifier:
    """Return the laws with their anchor; refuse weights of which nothing is learned, or stillness."""
    weights = stage.laws.values()
    if stage.method != "sft" and not any(weight > 0 for weight in weights):
        raise InputError(f"posttrain.laws: no weight above 0 among {stage.laws}; {stage.method} would learn nothing")
    if stage.method != "sft" and stage.liveliness == 0:
        raise InputError("posttrain.liveliness is 0; motions that stand still obey most laws: give it a weight above 0")
    return MotionVerifier([*verifier_of(stage.laws).terms, MotionTerm(Liveliness(), stage.liveliness)], allow_trivial=True)


def check(recipe: MotionRecipe, pipeline: MotionPipeline) -> None:
    """Refuse numbers of steps that the schedule does not have, and what GRPO does for videos alone."""
    times = int(pipeline.scheduler.config.num_train_timesteps)
    for name, steps in {
        "sampler.steps": recipe.sampler.steps,
        "posttrain.sampler_steps": recipe.posttrain.sampler_steps,
    }.items():
        if steps > times:
            raise InputError(f"{name} is {steps}; this model's schedule has {times}: lower it")
    if recipe.posttrain.grpo.mimicry is not None:
        raise InputError("posttrain.grpo.mimicry learns from true clips of videos; leave it out, or take posttrain.method sft")


NAMES = {
    "sampler.steps": "posttrain.sampler_steps",
    "reward.grad_steps": "posttrain.grad_steps",
    "optimizer.": "posttrain.optimizer.",
    "grpo.": "posttrain.grpo.",
    "save_every": "posttrain.save_every",
    "max_steps": "posttrain.updates",
    "clips": "motions",
    "mass_conservation, motion_floor": "posttrain.liveliness",
    ", or use mixed_precision no": "",
}
"""What the trainer calls settings, and what they are here."""


def as_written(message: str) -> str:
    """Return the trainer's message with the names of this recipe."""
    for name, here in NAMES.items():
        message = re.sub(rf"(?<![\w.]){re.escape(name)}", here, message)
    return message


def settings(recipe: MotionRecipe) -> PosttrainRecipe:
    """Return the recipe as the trainer takes it; what is of pixels says nothing."""
    stage = recipe.posttrain
    rewarded = stage.method in ("reward_backprop", "refl", "grpo")
    return PosttrainRecipe(
        output=recipe.output,
        method=stage.method,
        max_steps=stage.updates,
        seed=recipe.seed,
        data=Data(path="motions", frames=stage.frames, fps=FPS),
        batch_size=stage.texts,
        gradient_accumulation=1,
        sampler=Sampler(steps=stage.sampler_steps, guidance_scale=recipe.sampler.text_guidance),
        reward=Reward(grad_steps=stage.grad_steps, checkpointing="none", reference="base" if rewarded else "none"),
        grpo=stage.grpo,
        refl=stage.refl,
        preference=Preference(beta=stage.beta),
        sft=Sft(caption_dropout=stage.caption_dropout, checkpointing=False),
        weights="full",
        optimizer=stage.optimizer,
        ema=Ema(schedule="none"),
        validation=Validation(every=0),
        monitor=Monitor(every=stage.monitor.every, motion=stage.monitor.motion, patience=stage.monitor.patience),
        save_every=stage.save_every,
        trackers=[],
    )


def examples(recipe: MotionRecipe) -> Texts:
    """Return what is trained on: the recipe's texts, or those of the simulated actions; for sft their motions too.

    Raises:
        InputError: files of texts for sft, which needs motions.
    """
    stage = recipe.posttrain
    if stage.method != "sft":
        return Texts([item.caption for item in plan(recipe)] if recipe.files else captions())
    if len(recipe.files) > 1 or (recipe.files and not Path(recipe.files[0]).is_dir()):
        raise InputError(
            f"posttrain.method sft learns from motions, not from texts alone ({recipe.files[0]!r}); give the folder of motions "
            "in HumanML3D's format, or nothing: then simulated actions are drawn"
        )
    if recipe.files:
        motions = humanml3d(recipe.files[0], "train")
    else:
        motions = simulated([], stage.drawn, recipe.seed, 4.0, Path(recipe.output))
    drawn = windows(motions, torch.arange(len(motions)), stage.frames, FPS, torch.Generator().manual_seed(recipe.seed))
    whole = [i for i, length in enumerate(drawn.lengths.tolist()) if length == stage.frames]
    if not whole:
        raise InputError(f"no motion has {stage.frames} frames at {FPS:g} frames/s; lower posttrain.frames")
    return Texts([drawn.texts[i] for i in whole], drawn.features[whole])


def captions(each: int = 12) -> list[str]:
    """Return captions of the simulated actions, ``each`` of every action."""
    from visviva.data.actions import ACTIONS, draw

    return list(draw(list(ACTIONS) * each, seed=424_242, fps=10.0, seconds=0.3).captions)


@torch.no_grad()
def comparison(
    recipe: MotionRecipe, pipeline: MotionPipeline, untouched: MotionPipeline, texts: Sequence[str]
) -> dict[str, Any]:
    """Return every law's mean residual of both models on the same held-out noise, and the paired change with its interval."""
    stage, rng = recipe.posttrain, torch.Generator().manual_seed(recipe.seed + 1)
    chosen = [texts[int(i)] for i in torch.randperm(len(texts), generator=rng)[:CHECKED]]
    seeds = [key(recipe.seed, "motion comparison", k, "") for k in range(len(chosen))]
    options: dict[str, Any] = {"seconds": stage.frames / FPS, "fps": FPS, "seeds": seeds, "steps": recipe.sampler.steps}
    options["text_guidance"] = recipe.sampler.text_guidance
    one, two = (model(chosen, **options).joints for model in (untouched, pipeline))
    if not bool(two.isfinite().all()):
        raise InputError(
            f"the post-trained model makes joints that are not finite; lower posttrain.optimizer.lr (it is "
            f"{stage.optimizer.lr:g}) and choose another output folder"
        )
    lengths = torch.full((len(chosen),), stage.frames, device=one.device)
    found: dict[str, Any] = {"texts": chosen, "recipe": json.loads(recipe.model_dump_json()), "made_with": provenance()}
    for name, law in MOTION_LAWS.items():
        given = {"reference": one} if name == "liveliness" else {}
        a, b = (law()(x, FPS, lengths, **given) for x in (one, two))
        both = a.valid & b.valid
        change = (b.value - a.value)[both].double()
        half = 1.96 * float(change.std()) / max(len(change), 1) ** 0.5 if len(change) > 1 else float("nan")
        found[name] = {"before": _mean(a.value, both), "after": _mean(b.value, both), "motions": int(both.sum())}
        found[name] |= {"change": _mean(b.value - a.value, both), "half_interval": half}
    speed = [float(x.diff(dim=1).norm(dim=-1).mean() * FPS) for x in (one, two)]
    found["speed"] = {"before": speed[0], "after": speed[1]}
    return found


def _mean(value: Tensor, valid: Tensor) -> float:
    return float(value[valid].mean()) if bool(valid.any()) else float("nan")
