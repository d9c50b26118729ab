"""The objectives of post-training as settings: laws and how clips are measured, and what each method has of its own."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from visviva.configs.schema import Section
from visviva.errors import InputError


class Law(Section):
    """One weighted law of the reward."""

    name: str
    """Name of a law, for example constant_acceleration, mass_conservation, motion_floor, reference_flow."""
    weight: float = Field(default=1.0, ge=0)
    """Its weight in the loss; 0 logs it without training on it."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the law, see its docstring."""


class Probe(Section):
    """How generated frames are measured."""

    flow: str = "lucas_kanade"
    """Optical flow: lucas_kanade, flow_network or raft (differentiable, as training needs; raft wants flow_options: {path: X}),
    or dis (OpenCV, evaluation only)."""
    flow_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the flow probe."""
    features: str = "auto"
    """Appearance features: auto (the video VAE's where a law needs features), none, vae, or vjepa2:PATH."""


class Window(Section):
    """The stretch of the clip that is decoded and judged."""

    start: int | Literal["random"] = 0
    """First frame; "random" draws one start per update."""
    frames: int | None = Field(default=None, ge=4)
    """Number of frames; None takes all. Fewer frames spare memory: the decoder dominates it."""


class Reward(Section):
    """Reward backpropagation: gradients of the laws flow through frames, decoder and the last sampler steps."""

    laws: list[Law] = Field(
        default_factory=lambda: [Law(name="constant_acceleration"), Law(name="mass_conservation", weight=10.0)], min_length=1
    )
    """The laws trained on. A law that a frozen clip satisfies must stand beside an anchor."""
    grad_steps: int = Field(default=1, ge=1)
    """K: the number of last sampler steps in the graph (DRaFT-K, arXiv 2309.17400). Memory grows with K."""
    truncation: Literal["fixed", "uniform", "gaussian"] = "fixed"
    """How many steps that is in an update: always K, or drawn for each from 1 to K, every number alike or as AlignProp's
    released code does (N - cut with the cut ~ N(0.84 N, 0.1 N) of N steps; arXiv 2310.03739)."""
    detach: bool = False
    """Stop the gradient at the network's input in those steps, so that it reaches each step's output along the sampler's linear
    chain alone, sum_i h_i (dv_i/dw)^T dr/dx_N (DRTune, arXiv 2405.00760, which trains a subset of the steps). For K > 1."""
    noises: int = Field(default=1, ge=1)
    """Examples of the last step whose losses are averaged: the sampler's own, and its clean latents noised to the last level
    again, noises - 1 times (DRaFT-LV, arXiv 2309.17400; reconstructed, the paper noises n = 2 times). For K = 1; each is
    decoded and judged in the same graph."""
    guidance_in_graph: bool = True
    """Whether the unconditional branch of guidance carries gradient too (VADER and PISA: yes); no halves its memory."""
    checkpointing: Literal["none", "blocks", "steps", "both"] = "blocks"
    """What is recomputed in the backward pass instead of kept: transformer blocks (and decoded chunks), whole sampler steps,
    or both (for K > 1 on large models)."""
    window: Window = Window()
    """The decoded stretch."""
    clamp: Literal["straight_through", "none", "hard"] = "straight_through"
    """How decoded pixels are limited to [0, 1]; "hard" has no gradient outside."""
    probe: Probe = Probe()
    """How frames are measured."""
    mask_source: Literal["track", "motion", "objects", "truth", "none"] = "track"
    """Object masks of the generated clip: tracked from the clip's true first mask, segmented by motion (found in each
    frame; "objects" also those that stop, touch or cross), the true clip's masks, or none."""
    reference: Literal["truth", "base", "none"] = "truth"
    """The paired clip that laws compare with: the data's clip (image-to-video only), or the frozen base model's clip from the
    same noise and conditions."""
    contact: bool = True
    """Leave out frames around the true clip's contacts, where known."""
    allow_trivial: bool = False
    """Train on laws that doing nothing satisfies without an anchor. This collapses; for ablations only."""
    sft_weight: float = Field(default=0.0, ge=0)
    """Weight of a flow-matching loss on the true clips beside the reward (a stabiliser)."""

    def check(self, method: str, steps: int) -> None:
        """Raise an `InputError` for gradients that are not defined with this method and number of sampler steps."""
        chosen = {"truncation": self.truncation != "fixed", "detach": self.detach, "noises": self.noises > 1}
        for name in (name for name, given in chosen.items() if given):
            if method != "reward_backprop":
                raise InputError(f"reward.{name} is of method reward_backprop; method is {method!r}: leave it out")
            if name != "noises" and self.grad_steps == 1:
                raise InputError(
                    f"reward.{name} changes nothing with one step in the graph; give reward.grad_steps of 2 or more, or leave "
                    "it out"
                )
        if self.noises > 1 and self.grad_steps > 1:
            raise InputError(
                f"reward.noises is {self.noises} and reward.grad_steps {self.grad_steps}; only the last step can be taken "
                "from a clip noised again: give reward.grad_steps: 1"
            )
        if self.noises > 1 and steps == 1:
            raise InputError(
                f"reward.noises is {self.noises} and sampler.steps 1; noised again to its only level nothing of the clip is "
                "left: give sampler.steps of 2 or more"
            )


class Grpo(Section):
    """Group relative policy optimisation: groups of clips ranked by the laws; no gradient of the laws is needed."""

    sde: Literal["flow_grpo", "dance_grpo"] = "flow_grpo"
    """How noise enters on the way: growing with the noise level (arXiv 2505.05470), or constant (arXiv 2505.07818)."""
    strength: float | None = Field(default=None, ge=0)
    """Strength of that noise; None: the published 0.7 and 0.25."""
    group: int = Field(default=8, ge=2)
    """Clips per prompt and first noise."""
    trained: float = Field(default=0.6, gt=0, le=1)
    """Share of the steps with noise that each update trains."""
    clip: float = Field(default=1e-4, gt=0)
    """Largest change of the ratio of probabilities (means over a clip's numbers, so it is small)."""
    limit: float = Field(default=5.0, gt=0)
    """Largest advantage."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the frozen base (Flow-GRPO: 0.04 and 0.01)."""
    reuse: int = Field(default=1, ge=1)
    """Updates from one set of clips; save_every and max_steps must be multiples of it."""
    mimicry: float | None = Field(default=None, ge=0)
    """Groups whose mean loss is above this learn from the true clip by flow matching as well (PhysRVG); None: never."""


class Refl(Section):
    """ReFL: the reward of what one late sampler step predicts."""

    late: float = Field(default=0.25, gt=0, le=1)
    """Share of the last steps among which it is drawn (ImageReward: a quarter)."""
    weight: float = Field(default=1.0, gt=0)
    """Weight of the loss."""
    good: float = Field(default=0.0, ge=0)
    """Loss below which clips are left alone."""


class Preference(Section):
    """Preference tuning: true clips before generated ones (rows of the data have ``losers``, for phygdpo also ``scores``)."""

    beta: float | None = Field(default=None, gt=0)
    """How strongly the model is held to the frozen base; None: 5000 (dpo) and 1000 (phygdpo), on means over clips' numbers."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Constants of phygdpo's weights: least, steepness, middle, gamma_steepness, gamma_middle, gain."""


class Sft(Section):
    """Flow matching on the clips: the continued-fine-tuning control."""

    mean: float = 0.0
    """Mean of the logit-normal noise level."""
    std: float = Field(default=1.0, gt=0)
    """Its standard deviation."""
    caption_dropout: float = Field(default=0.0, ge=0, le=1)
    """Share of samples trained with the negative prompt instead of the caption (keeps guidance working)."""
    checkpointing: bool = True
    """Recompute transformer blocks in the backward pass."""
