"""The training loop: one trainer, different objectives, whatever is generated.

What clips are, how they are judged and written is said by `visviva.pipelines.posttrain.video.VideoTrainer` for videos and by
`visviva.pipelines.motion.trainer.MotionTrainer` for motions of people.

An update is a pure function of the weights, the optimizer's moments, the averages and the update's number: noise and data order
are keyed (see `plan`), the learning rate is computed (see `schedule`). A checkpoint of those is therefore all that a resumed
run needs to end bit-identical to one that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from visviva.configs.posttrain import PosttrainRecipe
from visviva.data.files import whole
from visviva.errors import InputError
from visviva.models.backbones.backbone import Backbone
from visviva.optim.teacher import Constant, Ramp, TeacherEMA
from visviva.pipelines.posttrain import checkpoint, export, model, optimizer, parallel
from visviva.pipelines.posttrain.batch import Batch
from visviva.pipelines.posttrain.cache import weights_hash
from visviva.pipelines.posttrain.dpo import Preference
from visviva.pipelines.posttrain.grpo import Grpo
from visviva.pipelines.posttrain.identity import identity, refuse_other
from visviva.pipelines.posttrain.log import Log
from visviva.pipelines.posttrain.monitor import Monitor
from visviva.pipelines.posttrain.plan import Plan, key
from visviva.pipelines.posttrain.reference import reference
from visviva.pipelines.posttrain.refl import Predicted, Refl
from visviva.pipelines.posttrain.reward_backprop import RewardBackprop
from visviva.pipelines.posttrain.rollout import Rollout
from visviva.pipelines.posttrain.schedule import learning_rate
from visviva.pipelines.posttrain.sft import Sft

Objective = Callable[..., tuple[Tensor, dict[str, Tensor]]]
"""(batch, the base's clips or None, whether the gate is asked) -> loss per sample, numbers to log."""


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind: its folder, the number of updates, and the exported weights (adapters or pipeline)."""

    output: Path
    steps: int
    weights: Path
    ema: Path | None


class Trainer:
    """Everything of one run; `run` does it. What is generated is told by a class below this one.

    Raises:
        InputError: something in the recipe, the data or the checkpoints cannot be used.
    """

    at_once = 1
    """How many clips of a group the networks are given at once: large models have memory for one."""
    examples: Any
    """What is trained on: has a length and a ``fingerprint``."""
    cache: Any
    """Of each example by index: its condition, frame rate, and clean latents where they are needed."""

    def __init__(self, recipe: PosttrainRecipe, backbone: Any = None) -> None:
        self.recipe, self.output = recipe, Path(recipe.output)
        make_folder(self.output)
        torch.manual_seed(key(recipe.seed, "global"))
        self.accelerator = parallel.start(recipe.model.device, recipe.trackers, str(self.output))
        self.device = self.accelerator.device
        self.read()
        self.backbone: Backbone = model.load(recipe, self.device) if backbone is None else backbone
        model.freeze(self.backbone, recipe)
        self.autocast = torch.bfloat16 if recipe.mixed_precision == "bf16" else None
        self.objective = self.make_objective()
        networks = self.backbone.networks().values()
        base = model.shared(self.accelerator, lambda: weights_hash([*networks, self.backbone.vae]))
        self.encode()
        self.plan = Plan(
            recipe.seed, len(self.examples), recipe.batch_size, recipe.gradient_accumulation, self.accelerator.num_processes
        )
        self.prepare()
        self.identity = identity(recipe, self.plan.effective, base, self.examples.fingerprint) | self.further_identity()
        self.step = self.resume()
        self.log = self.start_log()

    # -------------------------------------------------------------------------------------------------- what is generated

    def read(self) -> None:
        """Set ``examples``, after checking what needs no model."""
        raise NotImplementedError

    def encode(self) -> None:
        """Set ``cache``; the networks are still those of the file."""
        raise NotImplementedError

    def make_judge(self, sft: Sft) -> RewardBackprop:
        """Return what decodes and judges by the recipe's laws, after checking that the data have what it needs."""
        raise NotImplementedError

    def known(self, clips: list[int]) -> dict[str, Any]:
        """Return what a batch of these examples knows beside its cache, as fields of `Batch`."""
        raise NotImplementedError

    def further_identity(self) -> dict[str, Any]:
        """Return what else the weights depend on."""
        return {}

    def recipe_text(self) -> str:
        """Return the recipe that users write, as JSON."""
        return self.recipe.model_dump_json(indent=1)

    def validate(self) -> None:
        """Measure and log, before the first update and every ``validation.every``; none here."""

    def write(self, weights: Mapping[str, Tensor], name: str) -> None:
        """Write trained weights as ``<output>/<name>``."""
        write = export.lora if self.recipe.weights == "lora" else export.pipeline
        write(self.backbone, weights, self.output / name)

    def trainable(self) -> None:
        """Make weights trainable."""
        model.make_trainable(self.backbone, self.recipe)

    # --------------------------------------------------------------------------------------------------------------- set-up

    def make_objective(self) -> Objective:
        """Return the recipe's objective."""
        recipe, reward = self.recipe, self.recipe.reward
        sft = Sft(self.backbone, recipe.sft, recipe.sampler.shift, self.autocast)
        self.rollout = Rollout(
            self.backbone,
            recipe.sampler,
            recompute_steps=reward.checkpointing in ("steps", "both"),
            recompute_decoder=reward.checkpointing in ("blocks", "both"),
            clamp=reward.clamp,
            autocast=self.autocast,
            detach=reward.detach,
        )
        self.backbone.guidance_in_graph = reward.guidance_in_graph
        self.judge: RewardBackprop | None = None
        if recipe.method == "sft":
            return sft
        if recipe.method in ("dpo", "phygdpo"):
            return Preference(sft, recipe.preference, self.reference, guided=recipe.method == "phygdpo")
        if recipe.method == "refl":
            self.rollout = Predicted(**vars(self.rollout), late=recipe.refl.late)
        self.judge = self.make_judge(sft)
        if recipe.method == "refl":
            return Refl(self.judge, recipe.refl)
        if recipe.method == "grpo":
            shape = self.backbone.latent_shape(1, recipe.data.frames, recipe.data.height, recipe.data.width)
            return Grpo(self.judge, recipe.grpo, self.reference, recipe.gradient_accumulation, shape, self.at_once)
        return self.judge

    def reference(self) -> Any:
        """Return the context in which the networks are the frozen base: adapters off, or the copy of all weights in place."""
        return reference(self.backbone.networks(), self.base if self.copied else None, self.parameters)

    @property
    def copied(self) -> bool:
        """Whether more is trained than adapters, so that switching these off would not give the base back."""
        momentum = self.recipe.attention.kind == "momentum" and self.recipe.attention.learned
        return (
            self.recipe.weights == "full"
            or momentum
            or any(kind != "none" for kind in (self.recipe.control.kind, self.recipe.experts.kind))
        )

    def prepare(self) -> None:
        """Make weights trainable, wrap them for the launch, build optimizer, averages and the frozen base's copy."""
        recipe = self.recipe
        self.trainable()
        self.model = parallel.wrap(self.accelerator, parallel.Denoiser(self.backbone.networks()))
        self.parameters: dict[str, Tensor] = dict(self.backbone.trainable())
        self.optimizer = optimizer.build(self.parameters, recipe.optimizer)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        ema = recipe.ema
        decay = Ramp(ema.decay) if ema.schedule == "ramp" else Constant(ema.decay)
        self.ema = None if ema.schedule == "none" else TeacherEMA(self.parameters, decay)
        self.base = TeacherEMA(self.parameters, Constant(1.0)) if self.uses_base() else None
        least = {"motion_energy": recipe.monitor.motion, "object_area": recipe.monitor.area}
        self.monitor = Monitor(least, recipe.monitor.patience, {"disagreement": recipe.monitor.disagreement})

    def uses_base(self) -> bool:
        """Return whether the frozen base generates too: as the laws' reference or for the collapse monitor."""
        recipe = self.recipe
        held = recipe.method in ("dpo", "phygdpo") or (recipe.method == "grpo" and recipe.grpo.kl > 0)
        if self.copied and held:
            return True
        return recipe.rewarded and (recipe.reward.reference == "base" or recipe.monitor.every > 0)

    def resume(self) -> int:
        """Load the last complete checkpoint of this output, if any; return the number of finished updates."""
        found = checkpoint.latest(self.output / "checkpoints")
        if found is None:
            return 0
        saved = checkpoint.load(found)
        refuse_other(saved.state["identity"], self.identity, self.output)
        checkpoint.restore(self.parameters, saved.tensors["weights"], f"the checkpoint {str(found)!r}")
        checkpoint.restore_optimizer(self.optimizer, self.parameters, saved.tensors.get("optimizer", {}))
        if self.ema is not None:
            state = {"step": saved.state["ema"]["step"], "decay": saved.state["ema"]["decay"], "shadow": saved.tensors["ema"]}
            self.ema.load_state_dict(state)
        self.monitor.beyond = dict(saved.state["monitor"])
        return saved.step

    def start_log(self) -> Log:
        """Open metrics.jsonl and the trackers, and say what will happen."""
        recipe, main = self.recipe, self.accelerator.is_main_process
        if recipe.trackers:
            self.accelerator.init_trackers("trackers", config=flat(recipe.model_dump(mode="json")))
        if main:
            with whole(self.output / "recipe.json") as part:
                part.write_text(self.recipe_text())
            tqdm.write(self.summary())
        return Log(self.output / "metrics.jsonl", self.step, self.accelerator if recipe.trackers else None, main)

    def summary(self) -> str:
        """Return what will happen, with the arithmetic of the effective batch."""
        recipe, processes = self.recipe, self.accelerator.num_processes
        trained = sum(p.numel() for p in self.parameters.values())
        clips = self.plan.effective * recipe.max_steps
        lines = [
            f"posttrain: {recipe.method} on {len(self.examples)} examples, {trained:,} trained weights ({recipe.weights}), "
            f"{processes} process(es) on {self.device.type}",
            f"effective batch: {processes} processes x {recipe.batch_size} clips x {recipe.gradient_accumulation} micro-steps "
            f"= {self.plan.effective} clips per update; {recipe.max_steps} updates = {clips} clips = "
            f"{clips / len(self.examples):.2f} epochs",
        ]
        return "\n".join([*lines, *([f"continuing after update {self.step}"] if self.step else [])])

    # ----------------------------------------------------------------------------------------------------------------- loop

    def run(self) -> Trained:
        """Train to ``max_steps``, validating and saving on the way; export the weights."""
        recipe = self.recipe
        if self.step == 0:
            self.validate()
        bar = tqdm(
            range(self.step, recipe.max_steps), initial=self.step, total=recipe.max_steps, desc=recipe.method, unit="update",
            disable=not self.accelerator.is_main_process,
        )  # fmt: skip
        for update in bar:
            values = self.update(update)
            self.step = update + 1
            self.log.write(self.step, "train", values)
            self.monitor.stop(self.step)
            bar.set_postfix({n: f"{v:.4g}" for n, v in values.items() if n in ("loss", "motion_energy")})
            last = self.step == recipe.max_steps
            if last or (recipe.validation.every and self.step % recipe.validation.every == 0):
                self.validate()
            if last or self.step % recipe.save_every == 0:
                self.save()
        return self.finish()

    def update(self, update: int) -> dict[str, float]:
        """Do one optimizer update over the effective batch; return what is logged."""
        began = time.perf_counter()
        recipe = self.recipe
        rate = learning_rate(recipe.optimizer, update, recipe.max_steps)
        for group, peak in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = peak * rate / recipe.optimizer.lr
        self.optimizer.zero_grad(set_to_none=True)
        checked = (
            self.judge is not None and self.base is not None and recipe.monitor.every > 0 and update % recipe.monitor.every == 0
        )
        logs: list[dict[str, Tensor]] = []
        for micro in range(recipe.gradient_accumulation):
            logs.append(self.micro_step(update, micro, checked))
        norm = self.clip(update)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.parameters)
        values = self.averaged(logs)
        values |= {"lr": rate, "grad_norm": norm, "seconds": time.perf_counter() - began}
        if checked:
            base = {n.removeprefix("base/"): v for n, v in values.items() if n.startswith("base/")}
            ratios = self.monitor.check(values, base)
            values |= {f"ratio/{n}": v for n, v in ratios.items()}
        return values

    def micro_step(self, update: int, micro: int, checked: bool) -> dict[str, Tensor]:
        """Add the gradient of one micro-batch; return its logs, one number per sample."""
        batch = self.batch(update, micro)
        frames, logs = None, {}
        if checked or (self.judge is not None and self.base is not None and self.recipe.reward.reference == "base"):
            frames = self.base_frames(batch)
        last = micro == self.recipe.gradient_accumulation - 1
        with parallel.no_exchange(self.accelerator, self.model, last):
            loss, logs = self.model(partial(self.objective, batch, frames, checked))
            self.accelerator.backward(loss.sum() / (len(batch) * self.recipe.gradient_accumulation))
        logs = {"loss": loss.detach(), **logs}
        if checked and frames is not None and self.judge is not None:
            logs |= {f"base/{n}": v for n, v in self.judge.observe(frames, batch).items()}
        return logs

    @torch.no_grad()
    def base_frames(self, batch: Batch) -> Tensor:
        """Return the frozen base's clips from the same noise and conditions."""
        if self.base is None or self.judge is None:
            raise InputError("the frozen base generates only where clips are judged")
        with self.base.applied(self.parameters):
            return self.model(partial(self.rollout.frames, batch, 0, self.judge.end(batch)))

    def batch(self, update: int, micro: int) -> Batch:
        """Return this process's micro-batch."""
        data, reuse = self.recipe.data, self.recipe.grpo.reuse if self.recipe.method == "grpo" else 1
        samples = self.plan.batch(update // reuse, self.accelerator.process_index, micro)
        return Batch(
            noise=self.backbone.noise([s.noise for s in samples], data.frames, data.height, data.width),
            keys=[s.noise for s in samples],
            start=self.window_start(update // reuse),
            draw=key(self.recipe.seed, "draw", update // reuse),
            **model.prepared([self.cache[s.clip] for s in samples], self.device),
            **self.known([s.clip for s in samples]),
        )

    def window_start(self, update: int) -> int:
        """Return the first frame of the judged window: the recipe's, or one drawn per update."""
        window = self.recipe.reward.window
        if window.start != "random":
            return window.start
        free = self.recipe.data.frames - (window.frames or self.recipe.data.frames)
        generator = torch.Generator().manual_seed(key(self.recipe.seed, "window", update))
        return int(torch.randint(free + 1, (), generator=generator))

    def clip(self, update: int) -> float:
        """Clip the gradient's global norm; return the norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.recipe.optimizer.clip)
        value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if not math.isfinite(value):
            raise InputError(
                f"the gradient norm is {value} at update {update + 1}; lower optimizer.lr or reward.grad_steps and start again "
                "in another output; the checkpoints of this run are kept"
            )
        return value

    def averaged(self, logs: list[dict[str, Tensor]]) -> dict[str, float]:
        """Return the mean over all samples of the update and all processes; samples where a law does not apply are left out."""
        names = sorted(logs[0])
        table = torch.stack([torch.cat([log[n].float() for log in logs]) for n in names], dim=1)
        gathered = self.accelerator.gather(table.contiguous()).double()
        known = torch.isfinite(gathered)
        means = torch.where(known, gathered, 0.0).sum(0) / known.sum(0)
        return dict(zip(names, means.tolist(), strict=True))

    # -------------------------------------------------------------------------------------------------- validating and saving

    def save(self) -> None:
        """Write a checkpoint; every process takes part in gathering, the main one writes."""
        groups: dict[str, Mapping[str, Tensor]] = {
            "weights": checkpoint.gathered(self.parameters),
            "optimizer": checkpoint.optimizer_tensors(self.optimizer, self.parameters),
        }
        state: dict[str, Any] = {"identity": self.identity, "monitor": self.monitor.beyond}
        if self.ema is not None:
            shadow = self.ema.state_dict()
            groups["ema"] = checkpoint.gathered(shadow["shadow"])
            state["ema"] = {"step": shadow["step"], "decay": shadow["decay"]}
        together(
            self.accelerator, lambda: checkpoint.save(self.output / "checkpoints", self.step, groups, state, self.recipe.keep)
        )

    def finish(self) -> Trained:
        """Export the trained (and averaged) weights and close the trackers."""
        name = "lora" if self.recipe.weights == "lora" else "model"
        weights = checkpoint.gathered(self.parameters)
        together(self.accelerator, lambda: self.write(weights, name))
        if self.ema is not None:
            averages = checkpoint.gathered(self.ema.shadow)
            together(self.accelerator, lambda: self.write(averages, f"{name}-ema"))
        self.accelerator.wait_for_everyone()
        if self.recipe.trackers:
            self.accelerator.end_training()
        ema = self.output / f"{name}-ema" if self.ema is not None else None
        if self.accelerator.is_main_process:
            tqdm.write(f"posttrain: {self.step} updates done; weights in {self.output / name}")
        return Trained(self.output, self.step, self.output / name, ema)


def make_folder(path: Path) -> None:
    """Make the output folder, or say why it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {str(path)!r} cannot be a folder: {error.strerror}; choose another path") from error


def together(accelerator: Any, write: Callable[[], Any]) -> None:
    """Let the main process write while the others wait; an `InputError` there is raised on all."""
    message: str | None = None
    if accelerator.is_main_process:
        try:
            write()
        except InputError as error:
            message = str(error)
    message = model.shared(accelerator, lambda: message)
    if message is not None:
        raise InputError(message)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as dotted names with values that every tracker takes."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return leaves
