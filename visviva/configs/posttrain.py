"""Post-train a video model: Newton's laws by reward backpropagation, or plain flow matching as the control.

The settings of ``visviva posttrain``. Defaults follow the published route-A recipes where they exist (NewtonRewards,
arXiv 2512.00425; PISA, arXiv 2503.09595; VADER, arXiv 2407.08737) and our own measurements where those are silent.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from visviva.configs.experts import Align, Experts
from visviva.configs.objectives import Grpo, Law, Preference, Probe, Refl, Reward, Sft, Window
from visviva.configs.schema import Recipe, Section
from visviva.errors import InputError

__all__ = ["Align", "Experts", "Grpo", "Law", "PosttrainRecipe", "Preference", "Probe", "Refl", "Reward", "Sft", "Window"]


class Model(Section):
    """The video model to train."""

    path: str = "tiny"
    """A local folder in diffusers format, a hub id, or "tiny" (the model shipped in the package)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the frozen weights; trained weights are always float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; "auto" takes the accelerator if there is one. "cpu" also under torchrun (gloo)."""


class Data(Section):
    """What is trained on: clips with captions, or prompts alone."""

    path: str = ""
    """A folder of clips with metadata.jsonl (from 'visviva simulate'), a folder of videos with .txt captions beside them, or a
    JSONL with video and caption."""
    prompts: str = ""
    """Instead of ``path``: a .jsonl or .csv of prompts, with first frames for image-to-video (see 'visviva generate')."""
    where: dict[str, int | float | str] = Field(default_factory=dict)
    """Only clips whose metadata has these values, for example {split: id, primitive: free_fall}."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first clips."""
    frames: int = Field(default=17, ge=4)
    """Frames per generated clip; the model's multiple plus one (4k+1 for Wan)."""
    height: int = Field(default=64, ge=8)
    """Height [px]; clips of another size are resized and cropped around the centre."""
    width: int = Field(default=64, ge=8)
    """Width [px]."""
    fps: float | None = Field(default=None, gt=0)
    """Resample clips to this rate [frames/s]; None keeps each clip's own."""
    negative: str = ""
    """Negative prompt of classifier-free guidance."""
    cache: str = ""
    """Folder of precomputed prompt embeddings and first-frame latents; empty: ``<output>/cache``. Reused only if the model,
    the clips and the settings are the same."""
    free_encoders: bool = True
    """Drop the text encoder from memory once the cache is complete."""


class Sampler(Section):
    """How clips are generated while training."""

    steps: int = Field(default=10, ge=1)
    """Euler steps from noise to clip (PISA: 10)."""
    guidance_scale: float = Field(default=1.0, ge=0)
    """Classifier-free guidance; 1 is off."""
    shift: float | None = Field(default=None, gt=0)
    """Noise schedule shift; None takes the model's own."""


class Attention(Section):
    """Attention of the denoiser: as it is, or with momentum along time (arXiv 2602.04902)."""

    kind: Literal["plain", "momentum"] = "plain"
    """momentum: queries and keys of video tokens get their difference from frame to frame added."""
    gamma: float = 0.0
    """Strength of the difference; a model of 30 layers takes a few tenths (`visviva.models.attention.depth_law`)."""
    learned: bool = False
    """Train a strength for each head, beginning at ``gamma``; 0 begins with the unmodified model."""
    sides: Literal["qk", "k", "q"] = "qk"
    """What gets the difference; k alone is stronger in small models."""
    before_rope: bool = False
    """Before the rotary embedding instead of after it."""
    difference: Literal["backward", "central", "forward"] = "backward"
    """Which difference; the paper: backward."""
    zero_first: int = Field(default=1, ge=1)
    """Leading latent frames without difference; 2 where the first holds one picture and others several."""


class Control(Section):
    """Control of the clips by forces: the data's ``forces`` become an input (docs/forces.md)."""

    kind: Literal["none", "force"] = "none"
    """force: a branch beside the first blocks reads force prompts and is trained whole (arXiv 2505.19386)."""
    blocks: int = Field(default=6, ge=1)
    """How many of the first blocks are copied (the paper: 6)."""


class Lora(Section):
    """Low-rank adapters (arXiv 2106.09685), saved as diffusers' ``load_lora_weights`` reads them."""

    rank: int = Field(default=16, ge=1)
    """Rank (VADER: 16)."""
    alpha: int = Field(default=16, ge=1)
    """Scale; the adapter is multiplied by alpha / rank."""
    targets: str | None = None
    """Regular expression of layer names; None takes the backbone's attention and feed-forward layers."""


Option = bool | int | float | str | list[float] | None


class ParameterGroup(Section):
    """Parameters with settings of their own."""

    pattern: str
    """Regular expression that is searched for in the parameters' names; the first group that matches takes the parameter."""
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate; None: that of the optimizer."""
    options: dict[str, Option] = {}
    """Hyper-parameters, such as ``weight_decay: 0``."""


class Optimizer(Section):
    """The optimizer (``visviva optim list`` describes them) and its learning-rate schedule."""

    name: Literal[
        "adamw",
        "sgdm",
        "spam",
        "adabelief",
        "exadam",
        "adan",
        "adamp",
        "sgdp",
        "lion",
        "lion_k",
        "sgd_sai",
        "am_msgd",
        "am_adamw",
        "muon",
        "root",
        "namo",
        "namo_d",
        "fismo",
    ] = "adamw"
    """Which one."""
    lr: float = Field(default=2e-4, gt=0)
    """Peak learning rate (LoRA 2e-4 as VADER; full weights 1e-6 to 1e-5 as PISA)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay, as the optimizer does it."""
    options: dict[str, Option] = {}
    """Further hyper-parameters by the optimizer's own names, such as ``betas: [0.9, 0.99]``, ``eps: 1e-8``."""
    groups: list[ParameterGroup] = []
    """Parameters with settings of their own; the others take the optimizer's."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Shape after the warm-up; linear and cosine end at 0 at ``max_steps``."""
    warmup: int = Field(default=0, ge=0)
    """Updates of linear warm-up."""
    clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""


class Ema(Section):
    """A float32 moving average of the trained weights."""

    decay: float = Field(default=0.99, ge=0, lt=1)
    """Decay (PISA: 0.99); choose a half-life of 5-10 % of the run."""
    schedule: Literal["ramp", "constant", "none"] = "ramp"
    """diffusers' ramp (1+s)/(10+s) up to ``decay``, the constant, or no average at all."""


class Validation(Section):
    """Clips generated before the first update, every ``every`` updates and at the end, from fixed noise."""

    every: int = Field(default=100, ge=0)
    """Updates between validations; 0 never."""
    path: str = ""
    """Clips to validate on; empty: the first training clips."""
    where: dict[str, int | float | str] = Field(default_factory=dict)
    """Only clips whose metadata has these values."""
    clips: int = Field(default=4, ge=1)
    """How many."""
    metrics: list[str] = Field(default_factory=lambda: ["constant_acceleration"])
    """What is measured on them, apart from the training laws: names of laws (measured with OpenCV DIS, which no law trains
    against) and, where there is ground truth, of trajectory metrics."""
    ema: bool = True
    """Generate with the averaged weights where there are any."""
    video: bool = True
    """Write the clips as mp4 under ``<output>/validation``."""


class Monitor(Section):
    """Stops a run whose clips freeze, lose their object or fool the probe, against the frozen base's from the same noise."""

    every: int = Field(default=10, ge=0)
    """Updates between checks; 0 never checks."""
    motion: float = Field(default=0.3, ge=0, le=1)
    """Smallest motion energy, as a fraction of the base's."""
    area: float = Field(default=0.3, ge=0, le=1)
    """Smallest object area, as a fraction of the base's."""
    disagreement: float = Field(default=4.0, ge=0)
    """Largest disagreement of the flow probe with OpenCV DIS at the object, as a multiple of the base's: more means that the
    probe is being fooled. 0 does not judge it."""
    patience: int = Field(default=3, ge=1)
    """Checks in a row beyond a limit that end the run."""


class PosttrainRecipe(Recipe):
    """Post-train a video diffusion model so that its clips obey mechanics."""

    verb: Literal["posttrain"] = "posttrain"
    """Which verb this recipe is for."""
    output: str = "runs/posttrain"
    """Folder of the run: checkpoints, weights, metrics.jsonl, validation clips. A started run in it is continued."""
    method: Literal["reward_backprop", "refl", "grpo", "dpo", "phygdpo", "sft"] = "reward_backprop"
    """The objective: gradients of the laws through the last sampler steps, or through one predicted clip (refl); groups ranked
    by the laws (grpo); true clips preferred to generated ones (dpo, phygdpo); flow matching (sft)."""
    max_steps: int = Field(default=300, ge=1)
    """Updates in all."""
    seed: int = Field(default=0, ge=0)
    """Keys all noise and the order of the data."""
    model: Model = Model()
    """The video model."""
    data: Data = Data()
    """The clips."""
    batch_size: int = Field(default=1, ge=1)
    """Clips per process and micro-step."""
    gradient_accumulation: int = Field(default=4, ge=1)
    """Micro-steps per update. Effective batch = processes x batch_size x gradient_accumulation."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Autocast of the denoiser; decoding and laws stay float32."""
    sampler: Sampler = Sampler()
    """Sampling while training and validating."""
    reward: Reward = Reward()
    """Settings of reward_backprop."""
    grpo: Grpo = Grpo()
    """Settings of grpo; its laws are those of ``reward``."""
    refl: Refl = Refl()
    """Settings of refl; its laws are those of ``reward``."""
    preference: Preference = Preference()
    """Settings of dpo and phygdpo."""
    sft: Sft = Sft()
    """Settings of sft (and of reward.sft_weight)."""
    weights: Literal["lora", "full"] = "lora"
    """What is trained: low-rank adapters or all weights of the denoiser."""
    lora: Lora = Lora()
    """Settings of the adapters."""
    attention: Attention = Attention()
    """Momentum attention, saved beside the adapters."""
    experts: Experts = Experts()
    """Physical experts, saved beside the adapters."""
    control: Control = Control()
    """Force control, saved beside the adapters."""
    optimizer: Optimizer = Optimizer()
    """Optimizer and learning rate."""
    ema: Ema = Ema()
    """Moving average of the weights."""
    validation: Validation = Validation()
    """Validation clips."""
    monitor: Monitor = Monitor()
    """Collapse monitors."""
    save_every: int = Field(default=50, ge=1)
    """Updates between checkpoints."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints kept."""
    trackers: list[str] = Field(default_factory=lambda: ["tensorboard"])
    """Accelerate trackers (tensorboard, wandb, trackio, ...); metrics.jsonl is always written."""

    @property
    def rewarded(self) -> bool:
        """Whether generated clips are judged by laws."""
        return self.method in ("reward_backprop", "refl", "grpo")

    @property
    def learns_from_clips(self) -> bool:
        """Whether clean latents of true clips are needed."""
        mimics = self.method == "grpo" and self.grpo.mimicry is not None
        return self.method in ("sft", "dpo", "phygdpo") or mimics or (self.rewarded and self.reward.sft_weight > 0)

    def check(self) -> None:
        """Raise an `InputError` for settings that contradict each other; `visviva.pipelines.posttrain.run` calls it.

        (Not a validator: a recipe file may be completed on the command line.)
        """
        if bool(self.data.path) == bool(self.data.prompts):
            given = "both are set" if self.data.path else "neither is set"
            raise InputError(f"what to train on: give either data.path (clips) or data.prompts (a .jsonl or .csv); {given}")
        if self.data.prompts and self.learns_from_clips:
            raise InputError(
                "flow matching (method sft, reward.sft_weight, grpo.mimicry) and preferences (dpo, phygdpo) train on clips; "
                "give data.path, not data.prompts"
            )
        for name, kind in {"attention": "momentum", "control": "force", "experts": "prophy"}.items():
            if getattr(self, name).kind == kind and self.weights == "full":
                raise InputError(
                    f"{name}.kind {kind} with weights: full; a whole pipeline in diffusers format does not know it: use "
                    "weights: lora, beside whose adapters it is saved"
                )
        self.experts.check(self.method, self.batch_size)
        self.reward.check(self.method, self.sampler.steps)
        for name in ("save_every", "max_steps") if self.method == "grpo" else ():
            if getattr(self, name) % self.grpo.reuse:
                raise InputError(
                    f"{name} is {getattr(self, name)} and grpo.reuse {self.grpo.reuse}; a checkpoint between updates from the "
                    "same clips could not be continued exactly: make the first a multiple of the second"
                )
        if self.method == "grpo" and self.grpo.strength == 0:
            raise InputError(
                "grpo.strength is 0: all clips of a group would be the same; give a positive number, or leave it out"
            )
        if self.method == "grpo" and self.sampler.steps < 3:
            raise InputError(
                f"grpo explores in all sampler steps but the last; sampler.steps is {self.sampler.steps}, give 3 or more"
            )
        if self.method == "reward_backprop" and self.reward.grad_steps > self.sampler.steps:
            raise InputError(
                f"reward.grad_steps is {self.reward.grad_steps}, but the sampler has only {self.sampler.steps} steps "
                "(sampler.steps); lower the first or raise the second"
            )
        window = self.reward.window
        end = (0 if window.start == "random" else window.start) + (window.frames or 4)
        if self.rewarded and end > self.data.frames:
            raise InputError(
                f"reward.window needs {end} frames, but clips have {self.data.frames} (data.frames); shorten or move the window"
            )
