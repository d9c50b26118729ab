"""The settings of ``visviva motion``: motions of people in, metrics.json, report.html and plots out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from tyro.conf import Positional, arg

from visviva.configs.objectives import Grpo, Refl
from visviva.configs.posttrain import Optimizer
from visviva.configs.schema import Recipe, Section


class MotionSampler(Section):
    """How motions are generated: steps, guidance by text and laws, projection."""

    steps: int = Field(50, ge=1)
    """Denoising steps (DDIM)."""
    text_guidance: float = Field(2.5, ge=0)
    """Classifier-free guidance on the text; 1 is none."""
    laws: dict[str, float] = {"skating": 1.0, "penetration": 5.0, "euler_lagrange": 0.5}
    """Laws whose residuals guide the predicted clean motion, and their weights (skating, penetration, flight_gravity,
    euler_lagrange, liveliness)."""
    law_guidance: float = Field(0.0, ge=0)
    """Length of a law's step, in Polyak steps (loss over squared gradient norm); 0 is off, 1 a full one."""
    guided: int = Field(10, ge=1)
    """How many of the last steps the laws guide."""
    projected: int = Field(0, ge=0)
    """At how many of the last steps the motion is put on the floor, feet held where they stand, flights on parabolas (PhysDiff:
    4); 0 is off."""
    acceleration_consistency: float = Field(0.0, ge=0)
    """At every step the predicted clean motion is moved to accelerate as gravity and the ground under standing feet allow
    (after BioMoDiffuse, reconstructed). Weight of accelerations against places; 0 is off, 1 mends what is faster than
    1.6 Hz."""


class MotionOptimizer(Optimizer):
    """The optimizer of the motion model's post-training; all weights of the transformer are trained."""

    lr: float = Field(1e-4, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Shape after the warm-up; linear and cosine end at 0 at the last update."""
    warmup: int = Field(10, ge=0)
    """Updates of linear warm-up."""


class MotionMonitor(Section):
    """Stops a run (reward_backprop, refl, grpo) whose motions freeze, against the untouched model's from the same noise."""

    every: int = Field(10, ge=0)
    """Updates between checks; 0 never checks."""
    motion: float = Field(0.3, ge=0, le=1)
    """Least mean squared speed of joints, as a fraction of the untouched model's."""
    patience: int = Field(3, ge=1)
    """Checks in a row below it that end the run."""


class MotionPosttrain(Section):
    """Post-training of the motion model by laws, with the trainer and the objectives of the video models."""

    method: Literal["reward_backprop", "refl", "grpo", "dpo", "sft"] = "reward_backprop"
    """The objective: gradients of the laws through the last sampler steps, or through one predicted motion (refl); groups
    ranked by the laws (grpo); better motions of the model's own preferred to worse ones (dpo); flow matching (sft)."""
    updates: int = Field(100, ge=1)
    """Updates."""
    texts: int = Field(8, ge=1)
    """Texts per update and process."""
    frames: int = Field(40, ge=12, le=200)
    """Frames of a motion, at 20 frames/s."""
    sampler_steps: int = Field(10, ge=1)
    """Denoising steps of a motion in training."""
    grad_steps: int = Field(2, ge=1)
    """reward_backprop: the last steps that gradients flow through (K)."""
    optimizer: MotionOptimizer = MotionOptimizer()
    """Optimizer and learning rate."""
    laws: dict[str, float] = {"skating": 1.0, "penetration": 10.0, "euler_lagrange": 1.0, "flight_gravity": 0.2}
    """Laws and their weights in the loss."""
    liveliness: float = Field(2.0, ge=0)
    """Weight of the anchor: mean joint speed may not fall below 90 % of the untouched model's from the same noise."""
    keep: float = Field(1.0, ge=0)
    """reward_backprop, refl: weight of the squared distance to the untouched model's features from the same noise."""
    grpo: Grpo = Grpo()
    """Settings of grpo."""
    refl: Refl = Refl()
    """Settings of refl."""
    beta: float = Field(5000.0, gt=0)
    """dpo: how strongly the model is held to the untouched one, on means over a motion's numbers."""
    candidates: int = Field(6, ge=2)
    """dpo: motions of each text, of which the best by the laws is preferred to the worst."""
    drawn: int = Field(252, ge=1)
    """sft: simulated actions that are drawn where no folder of motions is given."""
    caption_dropout: float = Field(0.1, ge=0, le=1)
    """sft: share of motions trained without their text."""
    monitor: MotionMonitor = MotionMonitor()
    """Stops a run whose motions freeze."""
    save_every: int = Field(25, ge=1)
    """Updates between checkpoints."""


class MotionRecipe(Recipe):
    """Measure motions of people (visviva motion evaluate FILES): feet and ground, smoothness, bones, flight; errors against a
    reference where there is one. Or make them from text (visviva motion generate "a person jumps forward" --count 4): BVH, .npz
    of joints, SMPL parameters and a video each."""

    verb: Literal["motion"] = "motion"
    """Which verb this recipe is for."""
    action: Positional[Literal["evaluate", "reestimate", "generate", "posttrain", "render"]] = "evaluate"
    """evaluate: measure; reestimate: repair motions so that they obey dynamics, and say what changed; generate: make motions
    from texts; posttrain: teach the motion model the laws of motion; render: a video of each motion."""
    files: Positional[list[str]] = []
    """Motion files, or folders of them: BVH, TRC, C3D, AMASS/SMPL .npz, HumanML3D .npy (joints or features), .npz of joints.
    generate: texts, or files of texts (.txt with one a line; .jsonl or .csv with a column prompt, optionally id and seed)."""
    output: Annotated[str, arg(aliases=["--out"])] = "runs/motion"
    """Folder to write: metrics.json, report.html, plots."""
    reference: str = ""
    """A motion to compare each file with, or a folder with a motion of the same name for each: MPJPE, PA-MPJPE, velocity and
    acceleration errors."""
    frame_rate: Annotated[float | None, arg(aliases=["--fps"])] = Field(None, gt=0)
    """Frames per second, where a file does not say or says it wrongly; of generated motions (20 where nothing is said)."""
    units: Literal["m", "cm", "mm", "inch", "ft", "dm", "cmu"] | None = None
    """Units of length of the files; left out, what a file states, or what makes the body of human size; cmu: of CMU's
    BVH files."""
    stature: float | None = Field(None, ge=0.3, le=3)
    """Height of the person [m], from which the scale follows; instead of units."""
    up: Literal["x", "y", "z", "-x", "-y", "-z"] | None = None
    """The up axis of the files; left out, the one along which the body stands."""
    hand: Literal["left", "right"] | None = None
    """left: the axes are left-handed and are mirrored; right: they are taken as they are, whatever the joints' names
    say."""
    floor: float | None = Field(None, ge=-1000, le=1000)
    """Height of the floor [m] after conversion to z up; left out, the format's, or estimated from the lowest foot. Of 2D poses
    it counts from the camera: negative."""
    mass: float | None = Field(None, gt=0, lt=1000)
    """Mass of the person [kg]; left out, of an average adult of this stature."""
    noise: float | None = Field(None, gt=0, le=1)
    """reestimate: how far a coordinate of a joint may be wrong [m]; left out, found from the joints' scatter, 0.01 at least."""
    steps: int = Field(60, ge=1)
    """reestimate: steps of each of the two optimizations."""
    method: Literal["analytic", "learned", "fused"] = "analytic"
    """reestimate: analytic, true masses on a ground, rigid bones; learned, the dynamics of a network (FinePhys); fused, of 2D
    poses only, a mean of smoothed poses and of analytic ones: nearer to the truth than these, but bones change and dynamics
    holds less."""
    weights: str = "reestimation"
    """reestimate: of the lifter and the learned dynamics, shipped or a file that 'visviva pretrain' wrote."""
    picture: tuple[float, float] | None = None
    """reestimate, 2D poses: width and height of the pictures [px], where the file does not say."""
    layout: Literal["h36m", "coco", "humanml3d", "smpl"] | None = None
    """reestimate, 2D poses: which joints they are; left out, Human3.6M's for 17, HumanML3D's for 22, SMPL's for 24."""
    view: float = Field(50.0, gt=1, lt=170)
    """reestimate, 2D poses: vertical angle of view of the camera [degrees]."""
    tilt: float = Field(0.0, gt=-85, lt=85)
    """reestimate, 2D poses: how far the camera looks down from the horizon [degrees]."""
    pose_model: str = ""
    """reestimate, films: what finds the poses: a folder with a ViTPose model, or MediaPipe's .task file."""
    model: str = "tiny"
    """generate: the motion model, 'tiny' (shipped) or a folder that 'visviva pretrain --config pretrain-motion' wrote."""
    count: int = Field(1, ge=1)
    """generate: motions of each text, each from its own noise."""
    seconds: float = Field(2.0, gt=0)
    """generate: length of a motion [s]; the shipped model was trained on 40 frames, 2 s at 20 frames/s, 4 s at 10."""
    speed: float = Field(1.0, ge=0.1, le=10)
    """generate: how many times as fast the motion of the text is played: velocities are that many times as large, accelerations
    its square; falls too, unless they are projected."""
    seed: int = Field(0, ge=0)
    """generate: with the text's id this gives each motion its own noise; posttrain: keys all noise and order."""
    batch_size: int = Field(16, ge=1)
    """generate: motions made together."""
    sampler: MotionSampler = MotionSampler()
    """generate: steps, guidance, projection."""
    posttrain: MotionPosttrain = MotionPosttrain()
    """posttrain: laws, updates, anchors."""
    camera: Literal["front", "side", "follow"] = "follow"
    """render: front and side stand and have the whole way in the picture; follow moves along with the person."""
    size: int = Field(256, ge=32, le=2048, multiple_of=2)
    """render: height and width of the video [px]."""
    body: str = ""
    """render: an SMPL, SMPL-H or SMPL-X model (.npz) whose skin is drawn; left out, the skeleton."""
    backend: Literal["warp", "pytorch3d"] = "warp"
    """render: what draws: the ray tracer on Warp, or PyTorch3D where it is installed."""
    shown: int = Field(8, ge=0)
    """Motions with an animated body and plots in the report."""
