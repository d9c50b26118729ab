"""Post-train the motion model by laws of motion: reward backpropagation through the last sampler steps.

DRaFT-K (Clark et al., arXiv 2309.17400), as video models are post-trained here (`visviva.pipelines.posttrain.reward_backprop`),
on a network small enough to train whole:

    loss = laws(joints) + liveliness(joints, joints0) + keep |z - z0|^2

with joints and normalised features z sampled from a text and noise by the trained network, and joints0, z0 by the untouched one
from the same. Text and noise of every update follow from (seed, update). The result is a motion model like any other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from visviva.configs.motion import MotionPosttrain, MotionRecipe
from visviva.data.manifest import output_folder
from visviva.errors import InputError
from visviva.eval.run import provenance, write_json
from visviva.physics.motion_laws import MOTION_LAWS, Liveliness, MotionTerm, MotionVerdict, MotionVerifier
from visviva.pipelines.motion.generate import plan
from visviva.pipelines.motion.pipeline import MotionPipeline, load
from visviva.pipelines.motion.steering import verifier_of
from visviva.pipelines.posttrain.cache import weights_hash
from visviva.pipelines.posttrain.plan import key
from visviva.pipelines.pretrain.schedule import Log, State, generator, learning_rate

FPS = 20.0
CHECKED = 32
"""Motions of the comparison before and after, from noise that training does not see."""


def posttrain(recipe: MotionRecipe) -> Path:
    """Post-train the recipe's model and return the output folder: ``model``, ``posttrain.jsonl``, ``comparison.json``.

    A stopped run continues from its last checkpoint.

    Raises:
        InputError: no such model, an unknown law, laws without an anchor, a folder begun with other settings, weights that
            training made useless.

    Example::

        posttrain(MotionRecipe(action="posttrain", output="runs/obeys"))
    """
    stage, out = recipe.posttrain, output_folder(recipe.output)
    verifier = MotionVerifier([*verifier_of(stage.laws).terms, MotionTerm(Liveliness(), stage.liveliness)])
    pipeline, untouched = load(recipe.model), load(recipe.model)
    texts = [item.caption for item in plan(recipe)] if recipe.files else captions()
    _train(recipe, pipeline, untouched, verifier, texts, out)
    pipeline.transformer.requires_grad_(False).eval()
    found = comparison(recipe, pipeline, untouched, texts)
    pipeline.save_pretrained(out / "model", safe_serialization=True)
    write_json(out / "comparison.json", found)
    return out


def request(recipe: MotionRecipe, untouched: MotionPipeline, texts: Sequence[str]) -> dict[str, Any]:
    """Return everything that the trained weights depend on; a folder holds one run."""
    model = weights_hash([untouched.transformer, untouched.text_encoder])[:16]
    said = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:16]
    return {"model": model, "seed": recipe.seed, "texts_sha256": said, **recipe.posttrain.model_dump()}


def _refuse_others(out: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [name for name in now if begun.get(name) != now[name]]
    if changed:
        pairs = "; ".join(f"{name}: {begun.get(name)} there, {now[name]} now" for name in changed)
        raise InputError(
            f"{out} was begun with other settings ({pairs}); restore them to continue, or choose another output folder"
        )


def captions(each: int = 12) -> list[str]:
    """Return captions of the simulated actions, ``each`` of every action."""
    from visviva.data.actions import ACTIONS, draw

    return list(draw(list(ACTIONS) * each, seed=424_242, fps=10.0, seconds=0.3).captions)


def _train(
    recipe: MotionRecipe,
    pipeline: MotionPipeline,
    untouched: MotionPipeline,
    verifier: MotionVerifier,
    texts: Sequence[str],
    out: Path,
) -> None:
    stage, network = recipe.posttrain, pipeline.transformer.requires_grad_(True)
    parameters = dict(network.named_parameters())
    optimizer = torch.optim.AdamW([{"params": list(parameters.items())}], lr=stage.lr, weight_decay=0.0)
    state = State(out / "checkpoints", parameters, {"optimizer": optimizer})
    first, _, begun = state.resume()
    settings = json.loads(json.dumps(request(recipe, untouched, texts)))
    if first:
        _refuse_others(out, dict(begun), settings)
    log = Log(out / "posttrain.jsonl", first)
    for update in tqdm(range(first, stage.updates), initial=first, total=stage.updates, desc="post-training", unit="update"):
        optimizer.param_groups[0]["lr"] = stage.lr * learning_rate(update, stage.updates, stage.updates // 10, 0.5)
        rng = generator(recipe.seed, "motion posttrain", update)
        chosen = [texts[int(i)] for i in torch.randint(len(texts), (stage.texts,), generator=rng)]
        seeds = [key(recipe.seed, "motion posttrain", update, str(k)) for k in range(stage.texts)]
        verdict, moved = _judged(stage, pipeline, untouched, verifier, chosen, seeds)
        loss = verdict.loss.mean() + stage.keep * moved
        optimizer.zero_grad()
        loss.backward()
        size = torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        if not bool(size.isfinite()):
            raise InputError(f"update {update} has no finite gradient; lower posttrain.grad_steps or posttrain.lr")
        optimizer.step()
        residuals = {name: _mean(r.value.detach(), r.valid) for name, r in verdict.residuals.items()}
        log.write(step=update + 1, loss=float(loss.detach()), moved=float(moved.detach()), **residuals)
        if (update + 1) % 25 == 0 or update + 1 == stage.updates:
            state.save(update + 1, {}, settings)


def _judged(
    stage: MotionPosttrain,
    pipeline: MotionPipeline,
    untouched: MotionPipeline,
    verifier: MotionVerifier,
    texts: Sequence[str],
    seeds: Sequence[int],
) -> tuple[MotionVerdict, Tensor]:
    """Sample with both networks from the same noise; return the verdict, and the mean squared distance of the features."""
    options: dict[str, Any] = {"seconds": stage.frames / FPS, "fps": FPS, "seeds": seeds, "steps": stage.sampler_steps}
    before = untouched(texts, **options)
    with torch.enable_grad():
        found = pipeline(texts, **options, grad_steps=min(stage.grad_steps, stage.sampler_steps))
        verdict = verifier(found.joints, FPS, found.lengths, reference=before.joints)
        network = pipeline.transformer
        moved = (network.normalised(found.features) - network.normalised(before.features)).square().mean()
    return verdict, moved


@torch.no_grad()
def comparison(
    recipe: MotionRecipe, pipeline: MotionPipeline, untouched: MotionPipeline, texts: Sequence[str]
) -> dict[str, Any]:
    """Return every law's mean residual of both models on the same held-out noise, and the paired change with its interval."""
    stage, rng = recipe.posttrain, torch.Generator().manual_seed(recipe.seed + 1)
    chosen = [texts[int(i)] for i in torch.randperm(len(texts), generator=rng)[:CHECKED]]
    seeds = [key(recipe.seed, "motion comparison", k, "") for k in range(len(chosen))]
    options: dict[str, Any] = {"seconds": stage.frames / FPS, "fps": FPS, "seeds": seeds, "steps": recipe.sampler.steps}
    one, two = (model(chosen, **options).joints for model in (untouched, pipeline))
    if not bool(two.isfinite().all()):
        raise InputError(
            f"the post-trained model makes joints that are not finite; lower posttrain.lr (it is {stage.lr:g}) and choose "
            "another output folder"
        )
    lengths = torch.full((len(chosen),), stage.frames)
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
