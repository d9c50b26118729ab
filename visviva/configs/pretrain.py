"""Recipe of ``visviva pretrain``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from visviva.configs.schema import Recipe, Section


class AutoencoderStage(Section):
    """Training of the video autoencoder on whole clips."""

    steps: int = Field(3000, ge=0)
    """Updates; 0 keeps the random (or resumed) autoencoder."""
    batch_size: int = Field(8, ge=1)
    """Clips per update."""
    frames: int = Field(9, ge=1)
    """Consecutive frames taken from each clip (4k + 1)."""
    lr: float = Field(2e-3, gt=0)
    """Peak learning rate of AdamW."""
    warmup: int = Field(50, ge=0)
    """Updates of linear warm-up."""
    decay: float = Field(0.3, ge=0, le=1)
    """Share of the run over which the learning rate falls linearly to zero, at the end."""
    kl_weight: float = Field(1e-6, ge=0)
    """Weight of the Kullback-Leibler term, per latent element."""
    motion_weight: float = Field(2.0, ge=0)
    """Extra weight of pixels that differ from the clip's temporal median, where small objects live."""


class DenoiserStage(Section):
    """Training of the diffusion transformer and the text encoder on cached latents."""

    steps: int = Field(6000, ge=0)
    """Updates."""
    batch_size: int = Field(32, ge=1)
    """Clips per update."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW (embeddings, norms, text encoder)."""
    muon_lr: float = Field(2e-3, gt=0)
    """Peak learning rate of Muon (hidden matrices of the transformer), on AdamW's scale."""
    warmup: int = Field(100, ge=0)
    """Updates of linear warm-up."""
    decay: float = Field(0.3, ge=0, le=1)
    """Share of the run over which the learning rate falls linearly to zero, at the end."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay."""
    shift: float = Field(3.0, gt=0)
    """Time shift of the logit-normal noise levels; the sampler's default is 3 too."""
    caption_dropout: float = Field(0.05, ge=0, le=1)
    """Share of clips trained without a caption, so that classifier-free guidance works."""
    motion_weight: float = Field(2.0, ge=0)
    """Extra weight of latent positions that change over time."""
    ema: float = Field(0.998, ge=0, lt=1)
    """Decay of the averaged weights that are saved."""
    mirror: bool = True
    """Also train on mirrored clips, with left and right exchanged in the caption."""


class FlowStage(Section):
    """Training of the flow network on drawn scenes and simulated clips."""

    steps: int = Field(9000, ge=1)
    """Updates."""
    batch_size: int = Field(16, ge=1)
    """Frame pairs per update."""
    together: int = Field(1, ge=1)
    """Updates whose pairs are drawn at once: on a GPU drawing costs as much time for many pairs as for few."""
    side: int = Field(64, ge=16, multiple_of=8)
    """Side of the square crops [px]."""
    large: float = Field(0.15, ge=0, le=1)
    """Share of updates on crops of twice the side, a quarter of the pairs."""
    clips: list[str] = []
    """Folders of simulated clips with flow ('visviva simulate --arrays all'); none trains on drawn scenes alone."""
    simulated: float = Field(0.25, ge=0, le=1)
    """Share of the pairs that come from these clips."""
    lr: float = Field(2e-3, gt=0)
    """Peak learning rate of Muon and its AdamW, on AdamW's scale."""
    warmup: int = Field(100, ge=1)
    """Updates of linear warm-up."""
    decay: float = Field(0.35, ge=0, le=1)
    """Share of the run over which the learning rate falls linearly to zero, at the end."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay."""
    ema: float = Field(0.998, ge=0, lt=1)
    """Decay of the averaged weights that are saved."""


class LocaliserStage(Section):
    """Training of the violation localiser on drawn clips that lapse."""

    clips: int = Field(400, ge=40)
    """Training clips, half of them broken; half as many hold the alarm level, and again as many test."""
    simulated: str = ""
    """Folder of simulated clips ('visviva simulate --arrays small'): a quarter of the clips come from there, taken apart. Those
    of one object without contacts are used."""
    epochs: int = Field(60, ge=1)
    """Passes over the clips."""
    random: float = Field(0.5, ge=0, le=1)
    """Share of a clip's windows hidden at random."""
    high: float = Field(0.3, ge=0, le=1)
    """Share of a clip's windows hidden because the teacher attends to them most."""


class MotionStage(Section):
    """Training of the motion transformer and its text encoder, on simulated actions or a HumanML3D folder."""

    data: str = ""
    """A folder in HumanML3D's format (new_joint_vecs, texts, train.txt, val.txt); empty: simulated actions."""
    actions: list[str] = []
    """Names of the simulated actions; none: all."""
    clips: int = Field(2400, ge=16)
    """Simulated training clips; a tenth as many are held out."""
    seconds: float = Field(4.0, gt=0.5, le=30)
    """Length of a simulated clip [s]."""
    steps: int = Field(2600, ge=1)
    """Updates."""
    batch_size: int = Field(16, ge=1)
    """Windows per update; all of one update have the same frame rate."""
    frames: int = Field(40, ge=8)
    """Frames of a window at most."""
    rates: list[float] = Field([10.0, 13.0, 16.0, 20.0, 20.0, 30.0], min_length=1)
    """Frame rates of the windows [frames/s], drawn evenly: a rate that stands twice is drawn twice as often."""
    width: int = Field(64, ge=8, multiple_of=4)
    """Width of a part's token."""
    layers: int = Field(4, ge=1)
    """Layers of the transformer."""
    attention: Literal["art", "plain"] = "art"
    """ArtAttention, or a plain transformer to compare with."""
    templates: int = Field(32, ge=2)
    """ArtAttention's templates per part."""
    gather: float | None = Field(0.12, gt=0)
    """First width of the time in which a template gathers frames [s]; null: from all frames alike, as in the release."""
    experts: int = Field(1, ge=1)
    """Experts in front of the attention, of which each token takes one; 1: a plain feed-forward network (on a CPU the changing
    shapes of more cost twice the time)."""
    hidden: int = Field(256, ge=8)
    """Width of the feed-forward networks."""
    nearby: bool = True
    """Mix neighbouring frames in every layer."""
    start: str = ""
    """Folder of a motion model to begin with; parts that it does not have begin anew. Empty: from scratch."""
    text_encoder: str = ""
    """Folder of a CLIP or T5 text encoder in transformers' format, kept frozen; empty: a word encoder trained here."""
    schedule: Literal["linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    """Noise schedule: LMM's, or the cosine of MDM."""
    noise_steps: int = Field(1000, ge=2)
    """Diffusion steps of the schedule (50 or 1000)."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW (embeddings, read-in and read-out, text encoder)."""
    muon_lr: float = Field(2e-3, gt=0)
    """Peak learning rate of Muon (hidden matrices of the transformer), on AdamW's scale."""
    warmup: int = Field(100, ge=0)
    """Updates of linear warm-up."""
    decay: float = Field(0.4, ge=0, le=1)
    """Share of the run over which the learning rate falls linearly to zero, at the end."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay."""
    ema: float = Field(0.998, ge=0, lt=1)
    """Decay of the averaged weights that are saved."""
    caption_dropout: float = Field(0.1, ge=0, le=1)
    """Share of windows without a caption."""
    masked: float = Field(0.2, ge=0, le=1)
    """Share of windows of which a random share of (frame, part) tokens is hidden."""
    rotation_weight: float = Field(0.5, ge=0)
    """Weight of the rotation columns, which follow from the positions."""
    velocity_weight: float = Field(1.0, ge=0)
    """Weight of the error of the features' change from frame to frame, which keeps the motion smooth."""


class ImdyStage(Section):
    """Training of the inverse dynamics (ImDyS) on simulated actions with analytic torques and ground forces."""

    clips: int = Field(24, ge=1)
    """Two-second training clips of each action."""
    test: int = Field(6, ge=1)
    """Test clips of each action."""
    steps: int = Field(4000, ge=1)
    """Updates; 'stop_after' ends training earlier, with the learning rate at zero by then."""
    batch_size: int = Field(256, ge=2)
    """Windows per update."""
    cycle: int = Field(48, ge=1)
    """Windows of these that the forward net sees, too ..."""
    cycle_every: int = Field(3, ge=1)
    """... in every so many updates."""
    markers: int = Field(24, ge=1)
    """Most markers that the forward net sees."""
    true_share: float = Field(0.8, ge=0, le=1)
    """Share of the forward net's windows that are fed true forces; the others predicted ones."""
    noise: float = Field(0.005, ge=0)
    """Largest standard deviation of the noise on markers [m]; drawn evenly from 0 for each window."""
    joints_only: float = Field(0.6, ge=0, le=1)
    """Share of updates whose markers are the 22 joints; the others draw 22 to 96 from the pool, few more often than many."""
    lr: float = Field(8e-3, gt=0)
    """Peak learning rate of Muon and its AdamW, on AdamW's scale."""
    warmup: int = Field(50, ge=1)
    """Updates of linear warm-up."""
    decay: float = Field(0.5, gt=0, le=1)
    """Share of the run over which the learning rate falls linearly to zero, at the end."""
    ema: float = Field(0.99, ge=0, lt=1)
    """Decay of the averaged weights that are saved."""
    validate_every: int = Field(400, ge=1)
    """Updates between lines of the curve."""


class ReestimationStage(Section):
    """Training of the lifter and of PhysNet, on simulated actions and recorded motions before random cameras."""

    clips: int = Field(600, ge=15)
    """Three-second training clips, all actions alike; an eighth as many are held out."""
    recordings: str = ""
    """Folder of recorded motions (any kind that is read); empty: simulated ones alone."""
    recorded: float = Field(0.5, gt=0, lt=1)
    """Share of the training clips that are recorded, where there is a folder of them."""
    credit: str = ""
    """What the card says of the recordings: where they are from, their licence."""
    varied: float = Field(0.5, ge=0, le=1)
    """Share of the training clips that are given other bone lengths and bearings of arms and trunk."""
    guess_steps: int = Field(4000, ge=1)
    """Updates of the lifter's perceptron."""
    guess_batch: int = Field(64, ge=1)
    """Windows per update of the perceptron."""
    lifter_steps: int = Field(350, ge=1)
    """Updates of the lifter's transformer, which corrects the perceptron."""
    batch_size: int = Field(12, ge=1)
    """Windows per update of the lifter."""
    width: int = Field(48, ge=4, multiple_of=4)
    """Width of the lifter's tokens."""
    depth: int = Field(2, ge=2)
    """Depth of the lifter; in the first of them prompt and query stay apart."""
    lifted: int = Field(450, ge=1)
    """Clips that are lifted once for PhysNet's training."""
    physics_steps: int = Field(2000, ge=1)
    """Updates of PhysNet."""
    physics_batch: int = Field(12, ge=2)
    """Windows per update of PhysNet."""
    physics_width: int = Field(96, ge=4)
    """Width of PhysNet's encoders and heads."""
    mass: Literal["symmetric+noise", "cholesky"] = "symmetric+noise"
    """Form of the inverse mass: FinePhys's, or DeLaN's."""
    noise_weight: float = Field(1e-4, ge=0)
    """Weight of the noise matrices' norm."""
    lr: float = Field(3e-3, gt=0)
    """Peak learning rate of Muon and its AdamW, on AdamW's scale."""
    decay: float = Field(0.5, ge=0, le=1)
    """Share of the run over which the learning rate falls linearly to zero, at the end."""
    ema: float = Field(0.995, ge=0, lt=1)
    """Decay of the averaged weights that are saved."""


class EvaluatorStage(Section):
    """Training of the motion evaluator on simulated actions and their captions."""

    clips: int = Field(3000, ge=64)
    """Training clips."""
    held_out: int = Field(960, ge=64)
    """Other clips, of three seconds, on which it is measured."""
    seconds: float = Field(4.0, ge=2.5, le=30)
    """Length of a training clip [s]; windows of 2 to 4 s are taken from it."""
    steps: int = Field(1200, ge=1)
    """Updates."""
    batch_size: int = Field(64, ge=8)
    """Pairs per update; a quarter as many spoilt motions are further wrong answers."""
    dim: int = Field(64, ge=4)
    """Width of the embeddings."""
    width: int = Field(96, ge=4)
    """Width of the motion encoder."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay."""
    validate_every: int = Field(200, ge=1)
    """Updates between lines of the curve."""


class BiomechanicsStage(Section):
    """Training of the EMG encoder and of the modified Euler-Lagrange network on simulated actions."""

    clips: int = Field(12, ge=1)
    """Two-second training clips of each action."""
    test: int = Field(4, ge=1)
    """Test clips of each action."""
    contrast_steps: int = Field(80, ge=0)
    """Updates of the contrastive stage; 0 keeps the random encoder."""
    contrast_batch: int = Field(128, ge=2)
    """Windows of EMG per update."""
    predictive: float = Field(10.0, ge=0)
    """Weight of the predictive term beside the contrastive loss."""
    steps: int = Field(800, ge=1)
    """Updates of the Euler-Lagrange network."""
    batch_size: int = Field(512, ge=1)
    """Moments per update."""
    masked: float = Field(0.3, ge=0, le=1)
    """Share of moments whose muscles are masked."""
    lr: float = Field(2e-3, gt=0)
    """Peak learning rate of AdamW."""


class PretrainRecipe(Recipe):
    """Train a model that ships with the package from scratch: the tiny image-to-video model of the real Wan classes, the
    motion model, or the flow network."""

    verb: Literal["pretrain"] = "pretrain"
    """Which verb this recipe is for."""
    model: Literal["tiny-wan", "flow", "localiser", "motion", "imdy", "reestimation", "motion-evaluator", "biomechanics"] = (
        "tiny-wan"
    )
    """What to train; all but the tiny Wan read their own settings, and neither data nor validation."""
    data: str = "runs/train"
    """Folder of training clips written by 'visviva simulate'."""
    validation: str = "runs/val"
    """Folder of held-out clips for the curves."""
    out: str = "runs/tiny-wan"
    """Where the model, the curves and the checkpoints go."""
    size: Literal["default", "test"] = "default"
    """Architecture: the shipped one, or a minimal one for tests."""
    limit: int | None = Field(None, ge=1)
    """Use only so many training clips."""
    autoencoder: AutoencoderStage = AutoencoderStage()
    """First stage."""
    denoiser: DenoiserStage = DenoiserStage()
    """Second stage."""
    flow: FlowStage = FlowStage()
    """The flow network."""
    localiser: LocaliserStage = LocaliserStage()
    """The violation localiser."""
    imdy: ImdyStage = ImdyStage()
    """The inverse dynamics."""
    biomechanics: BiomechanicsStage = BiomechanicsStage()
    """The EMG encoder and the modified Euler-Lagrange network."""
    motion: MotionStage = MotionStage()
    """The motion model."""
    reestimation: ReestimationStage = ReestimationStage()
    """Lifter and learned dynamics."""
    evaluator: EvaluatorStage = EvaluatorStage()
    """The motion evaluator."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Autocast precision; weights and optimizer state stay in float32."""
    device: str = "auto"
    """auto, cpu, or cuda."""
    seed: int = 0
    """Seed of weights, data order and noise."""
    save_every: int = Field(200, ge=1)
    """Updates between checkpoints (a killed run continues from the last one)."""
    validate_every: int = Field(200, ge=1)
    """Updates between validations."""
    stop_after: float | None = Field(None, gt=0)
    """Stop cleanly after so many seconds, with a checkpoint; the same command continues."""
