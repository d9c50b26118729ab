"""The settings of ``visviva generate``: prompts and first frames in, clips and their metadata out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from tyro.conf import Positional

from visviva.configs.posttrain import Law, Model, Probe, Sampler
from visviva.configs.schema import Recipe, Section


class Judged(Section):
    """Laws that generated clips are held against, and how the clips are measured."""

    laws: list[Law] = Field([Law(name="constant_acceleration"), Law(name="motion_floor")], min_length=1)
    """The weighted laws. A law that a frozen clip satisfies must stand beside an anchor."""
    probe: Probe = Probe()
    """How the frames are measured; for guidance the flow must be differentiable."""
    masks: Literal["motion", "objects", "track", "none"] = "motion"
    """Object masks: segmented by motion ("objects" also finds those that stop, touch or cross), tracked from the true masks of
    the first frame (a folder of clips with arrays beside them), or none."""
    objects: int = Field(1, ge=1)
    """Number of moving objects to segment (masks: motion or objects)."""


class Best(Judged):
    """Best of N: of several clips from different noise the one that obeys the laws best is kept."""

    of: int = Field(1, ge=1)
    """How many are sampled for each clip; 1 is off. The first is the clip that would be made without."""


class Guidance(Judged):
    """Physics guidance: while sampling, the gradient of laws moves the predicted clean latents toward obeying them."""

    scale: float = Field(0.0, ge=0)
    """Length of a step, in Polyak steps (loss over squared gradient norm); 0 is off, 1 is a full one."""
    last: int = Field(3, ge=1)
    """How many of the last sampler steps are guided; earlier predictions are too blurred to measure."""
    inner: int = Field(1, ge=1)
    """Gradient steps within each guided sampler step; each costs one decoding with gradient."""
    radius: float = Field(0.05, gt=0)
    """Longest move per guided step, as a fraction of the latents' own norm: this keeps shape and place (IoU)."""


class GenerateRecipe(Recipe):
    """Generate clips from prompts and first frames: in batches, on one or many processes, continued where a run was stopped."""

    verb: Literal["generate"] = "generate"
    """Which verb this recipe is for."""
    prompts: Positional[str] = ""
    """What to generate: a .jsonl or .csv table (columns prompt or caption; image or video for the first frame; optionally id,
    seed, fps; others are passed on), a .txt with one prompt per line, or a folder of clips, whose captions and (for
    image-to-video models) first frames are taken."""
    output: str = "runs/generate"
    """Folder of the result: clips/<id>.mp4 and metadata.jsonl. A run begun in it with the same settings is continued."""
    model: Model = Model()
    """The video model."""
    lora: str = ""
    """Low-rank adapters to apply: a .safetensors file or the folder it lies in; tiny-force (shipped: the tiny model with force
    control); empty for none."""
    force: list[str] = []
    """Force prompts for every clip, where the model has force control (docs/forces.md): ``wind:angle=90,speed=0.5``, or one or
    several like ``point:x=0.4,y=0.6,angle=30,magnitude=0.8``. Without it rows may hold their own, as a list ``forces``."""
    wind: str = ""
    """Wind on every clip, ``angle=90,speed=0.5``: the same as ``--force wind:angle=90,speed=0.5``."""
    several_forces: Literal["composed", "joint"] = "composed"
    """Forces that act at once. composed: each acts by itself and what they change is added, for models trained on one at a time
    (n + 1 evaluations a step for n forces); joint: one input holds them all."""
    where: dict[str, str | int | float] = {}
    """Only rows with these values, for example {split: ood, primitive: free_fall}."""
    limit: int | None = Field(None, ge=1)
    """Only the first rows."""
    samples: int = Field(1, ge=1)
    """Clips per row, each from its own noise."""
    seed: int = Field(0, ge=0)
    """With the row's id this gives each clip its own noise, whatever the batch size and the number of processes."""
    batch_size: int = Field(4, ge=1)
    """Clips generated together on one process."""
    frames: int | None = Field(None, ge=4)
    """Frames per clip (4k+1 for Wan); None takes the model's own."""
    height: int | None = Field(None, ge=8)
    """Height [px]; first frames of another size are resized and cropped around the centre. None takes the model's own."""
    width: int | None = Field(None, ge=8)
    """Width [px]; None takes the model's own."""
    fps: float | None = Field(None, ge=0.1, le=10_000)
    """Frame rate of the clips [frames/s]; None takes the row's, else the model's own."""
    negative: str = ""
    """Negative prompt of classifier-free guidance."""
    sampler: Sampler = Sampler()
    """Steps, classifier-free guidance and noise schedule."""
    guidance: Guidance = Guidance()
    """Physics guidance."""
    best: Best = Best()
    """Best of N."""
    crf: int = Field(12, ge=0, le=51)
    """H.264 quality: 0 is lossless, higher is smaller."""
