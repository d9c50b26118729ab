"""The text-to-motion pipeline of diffusers: noise in, people in motion out; guidance and projection while sampling.

At each step the network predicts the clean motion x0, with classifier-free guidance ``x(none) + w (x(text) - x(none))``; then
laws may move x0 along the gradient of their residual (``guide``), and at the last steps x0 may be replaced by a projection
onto motions that stand on the floor and fly in parabolas (``project``; PhysDiff, arXiv 2212.02500: a few steps at the end, for
early x0 are mean poses). At every step its accelerations may be held against what forces allow (``consistency``). A DDIM step
with the changed x0 is PhysDiff's update. Speed is a matter of the frame rate (`tempo`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from visviva.data.motions.axes import upright
from visviva.data.motions.humanml3d import joints_of
from visviva.errors import InputError
from visviva.models.backbones.checkpoint import quiet
from visviva.models.motion.text import WordEncoder, encode
from visviva.models.motion.transformer import MotionTransformer
from visviva.pipelines.motion.consistency import AccelerationConsistency, Told
from visviva.pipelines.motion.tempo import quickened

TINY = Path(__file__).parents[2] / "models" / "weights" / "tiny-motion"
LONGEST = 10.0
"""The longest motion that is made at once [s]."""
Change = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(normalised clean features (B, T, 263), lengths (B,), fps (B,)) -> changed ones."""


@dataclass
class MotionOutput(BaseOutput):
    """``joints`` (B, T, 22, 3) [m], z up, beginning above the origin, facing -y; ``features`` (B, T, 263); ``lengths`` (B,)."""

    joints: Tensor
    features: Tensor
    lengths: Tensor


class MotionPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Text to motion with a `MotionTransformer`, a text encoder and any scheduler of diffusers that predicts the sample.

    Example::

        pipeline = load("tiny")
        found = pipeline(["a person walks forward"], seconds=3.0, fps=20.0, seeds=[0])
        found.joints.shape  # (1, 60, 22, 3)
    """

    _optional_components: ClassVar[list[str]] = ["tokenizer"]
    model_cpu_offload_seq = "text_encoder->transformer"
    if TYPE_CHECKING:  # what the base class brings, whose types diffusers hides
        transformer: Any
        text_encoder: Any
        tokenizer: Any
        scheduler: Any
        device: torch.device
        to: Any
        register_modules: Any
        save_pretrained: Any

    def __init__(self, transformer: MotionTransformer, text_encoder: Any, scheduler: Any, tokenizer: Any = None) -> None:
        super().__init__()
        if scheduler.config.prediction_type != "sample":
            raise InputError(
                f"a scheduler that predicts {scheduler.config.prediction_type!r}; this network predicts the sample: give "
                "prediction_type='sample'"
            )
        self.register_modules(transformer=transformer, text_encoder=text_encoder, scheduler=scheduler, tokenizer=tokenizer)

    def unknown_words(self, prompts: Sequence[str]) -> list[str]:
        """Return the words that the text encoder does not know; none for CLIP and T5, which read any."""
        return self.text_encoder.unknown(prompts) if isinstance(self.text_encoder, WordEncoder) else []

    def noise(self, seeds: Sequence[int], frames: int) -> Float[Tensor, "B T 263"]:
        """Return standard normal noise, one seeded CPU generator per motion; longer motions begin with that of shorter ones."""
        drawn = -(-frames // 16) * 16  # torch draws in blocks of 16 numbers, and the end of what is no multiple anew
        draws = [torch.randn(drawn, 263, generator=torch.Generator().manual_seed(int(seed)))[:frames] for seed in seeds]
        return torch.stack(draws).to(self.device)

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str],
        *,
        seconds: float | Sequence[float] = 3.0,
        fps: float = 20.0,
        speed: float = 1.0,
        seeds: Sequence[int] | None = None,
        steps: int = 50,
        text_guidance: float = 2.5,
        guide: Change | None = None,
        guided: int = 10,
        project: Change | None = None,
        projected: int = 4,
        consistency: AccelerationConsistency | None = None,
        emg: Float[Tensor, "B C S"] | None = None,
        grad_steps: int = 0,
        noise: Float[Tensor, "B T 263"] | None = None,
    ) -> MotionOutput:
        """Return motions of the prompts.

        Args:
            prompts: one text each; an empty one is unconditional.
            seconds: length, of all or of each [s]; ``fps``: frames per second.
            speed: how many times as fast the motion is played (`visviva.pipelines.motion.tempo`): in ``seconds`` there is
                what usually takes ``speed * seconds``.
            seeds: of the noise of each; None: 0, 1, 2, ...
            steps: of the sampler.
            text_guidance: w of the file's head; 1 is none.
            guide: changes x0 at the last ``guided`` steps; ``project``: replaces it at the last ``projected``.
            consistency: moves x0 at every step, before both, so that it accelerates as forces allow (`consistency`).
            emg: of the muscles that drive each motion, as it is played, from its first to its last frame at 1 kHz; by way of
                ``consistency``. Order and size of the shipped weights' 18 channels: `visviva.data.motions.emg`.
            grad_steps: the last steps that keep their graph, for training; 0: none.
            noise: instead of seeds.

        Raises:
            InputError: no prompts, lengths or rates that are not usable, steps beyond those of the schedule, seeds or noise
                that do not fit the prompts, EMG that does not fit the motions or without ``consistency``.
        """
        lengths = self._lengths(prompts, seconds, fps, speed)
        if not 1 <= steps <= self.scheduler.config.num_train_timesteps:
            raise InputError(f"steps = {steps}; allowed are 1 to {self.scheduler.config.num_train_timesteps}")
        x = self._start(seeds, noise, lengths)
        state = _Request(encode(self.text_encoder, self.tokenizer, prompts), lengths, torch.full((len(x),), fps), speed)
        shares, told = self._forces(consistency, emg, lengths, fps)
        self.scheduler.set_timesteps(steps, device=self.device)
        for i, t in enumerate(self.scheduler.timesteps):
            late = len(self.scheduler.timesteps) - i
            with torch.set_grad_enabled(late <= grad_steps):
                clean = self._clean(x, t, state, text_guidance)
                if consistency is not None:
                    clean = self._changed(partial(consistency, share=float(shares[int(t)]), told=told), clean, state)
                if guide is not None and late <= guided:
                    clean = self._changed(guide, clean, state)
                if project is not None and late <= projected:
                    clean = self._changed(project, clean, state)
                x = self.scheduler.step(clean, t, x).prev_sample
        with torch.set_grad_enabled(grad_steps > 0):
            there = (torch.arange(x.shape[1], device=x.device) < state.lengths[:, None])[..., None]
            found = quickened(self.transformer.denormalised(torch.where(there, x, 0.0)), speed)
            return MotionOutput(joints=self.joints(found, fps), features=found, lengths=state.lengths)

    def joints(self, features: Float[Tensor, "B T 263"], fps: float) -> Float[Tensor, "B T 22 3"]:
        """Return the joints of features that are not normalised, z up [m]."""
        return joints_of(features, fps) @ upright("y").T.to(features)

    def _start(self, seeds: Sequence[int] | None, noise: Tensor | None, lengths: Tensor) -> Tensor:
        count, frames = len(lengths), int(lengths.max())
        if seeds is not None and len(seeds) != count:
            raise InputError(f"{len(seeds)} seeds for {count} prompts; give one each, or none")
        if noise is not None and noise.shape != (count, frames, 263):
            raise InputError(f"noise of the shape {tuple(noise.shape)}; ({count}, {frames}, 263) is wanted")
        return self.noise(range(count) if seeds is None else seeds, frames) if noise is None else noise

    def _lengths(self, prompts: Sequence[str], seconds: float | Sequence[float], fps: float, speed: float) -> Tensor:
        if isinstance(prompts, str) or not prompts:
            raise InputError(f"prompts {prompts!r}: no prompts; give a list of at least one text")
        if not 1 <= fps <= 120:
            raise InputError(f"fps = {fps}; give 1 to 120 frames per second (training saw 10 to 30)")
        if not 0.1 <= speed <= 10:
            raise InputError(f"speed = {speed}; give a ratio of 0.1 to 10, 1 is the usual speed")
        each = [float(seconds)] * len(prompts) if isinstance(seconds, int | float) else [float(s) for s in seconds]
        if len(each) != len(prompts):
            raise InputError(f"{len(each)} lengths for {len(prompts)} prompts; give one, or one each")
        bad = [s for s in each if not (4 / fps <= s <= LONGEST / max(1.0, speed))]
        if bad:
            raise InputError(
                f"seconds = {bad[0]:g} at {fps:g} frames/s; give at least 4 frames and at most {LONGEST / max(1.0, speed):g} s"
            )
        return torch.tensor([round(s * fps) for s in each], device=self.device)

    def _forces(
        self, consistency: AccelerationConsistency | None, emg: Tensor | None, lengths: Tensor, fps: float
    ) -> tuple[Tensor, Told | None]:
        """Share of the move at each time of the schedule, and what EMG tells."""
        if consistency is None:
            if emg is not None:
                raise InputError("EMG drives motions by way of their accelerations; give consistency as well")
            return torch.empty(0), None
        shares = getattr(self.scheduler, "alphas_cumprod", None)
        if shares is None:
            raise InputError(
                f"{type(self.scheduler).__name__} has no alphas_cumprod, the share of a move; take another scheduler"
            )
        if emg is None:
            return shares, None
        if len(emg) != len(lengths):
            raise InputError(f"EMG of {len(emg)} motions for {len(lengths)} prompts; give one each")
        return shares, consistency.told(emg.to(self.device), int(lengths.max()), fps)

    def _clean(self, x: Tensor, t: Tensor, state: _Request, text: float) -> Tensor:
        tokens, there = state.text
        rate = (state.fps / state.speed).to(x.device)

        def predicted(seen: Tensor) -> Tensor:
            return self.transformer(x, t, tokens, seen, fps=rate, lengths=state.lengths).sample

        said = predicted(there)
        if text == 1:
            return said
        none = predicted(torch.zeros_like(there))
        return none + text * (said - none)

    def _changed(self, change: Change, clean: Tensor, state: _Request) -> Tensor:
        """Apply a change to the motion as it is played, for gravity and skating are of its own seconds."""
        if state.speed == 1:
            return change(clean, state.lengths, state.fps)
        played = self._played(clean, state.speed)
        return self._played(change(played, state.lengths, state.fps), 1 / state.speed)

    def _played(self, clean: Tensor, ratio: float) -> Tensor:
        return self.transformer.normalised(quickened(self.transformer.denormalised(clean), ratio))


@dataclass
class _Request:
    text: tuple[Tensor, Tensor]
    lengths: Tensor
    fps: Tensor
    speed: float


def load(path: str | Path = "tiny") -> MotionPipeline:
    """Return the pipeline of ``"tiny"`` (shipped) or a local folder, frozen; only safetensors are read.

    Raises:
        InputError: no such folder, none of a motion pipeline, or damaged files.
    """
    folder = TINY if str(path) == "tiny" else Path(path)
    if not (folder / "model_index.json").is_file():
        raise InputError(f"no motion model at {str(path)!r}; give 'tiny' or the folder that 'visviva pretrain' wrote")
    try:
        with quiet():
            found = MotionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{folder}: could not be loaded as a motion model ({said}); copy or train the model again") from error
    for network in (found.transformer, found.text_encoder):
        network.requires_grad_(False).eval()
    found.set_progress_bar_config(disable=True)
    return found
