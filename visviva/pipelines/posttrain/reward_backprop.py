"""Reward backpropagation: the gradient of the laws flows through probe, decoder and the last K sampler steps into the weights.

Route of NewtonRewards (arXiv 2512.00425), PISA (arXiv 2503.09595) and VADER (arXiv 2407.08737), truncated as DRaFT-K
(arXiv 2309.17400): sample without graph up to step N - K, keep the graph for the last K, decode the judged window, measure it
with frozen probes in float32, add up the weighted laws. The laws' reference is the data's clip or the frozen base's clip
from the same noise. Other gradients of the same clips are options: K drawn for each update (AlignProp, arXiv 2310.03739), the
network's inputs detached (DRTune, arXiv 2405.00760), the mean over several last steps (DRaFT-LV, arXiv 2309.17400).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.configs.posttrain import Reward
from visviva.errors import InputError
from visviva.physics.gate import Gate
from visviva.physics.measurement import Measurement
from visviva.physics.verify import Verdict, Verifier
from visviva.pipelines.posttrain.batch import Batch
from visviva.pipelines.posttrain.plan import key
from visviva.pipelines.posttrain.rollout import Rollout, finite
from visviva.pipelines.posttrain.sft import Outcome, Sft
from visviva.pipelines.posttrain.truncation import depth
from visviva.pipelines.posttrain.verifier import object_masks


class RewardBackprop:
    """The reward objective: a batch in, the loss of each sample and what to log out.

    Args:
        rollout: generates and decodes.
        verifier: probe and weighted laws.
        reward: settings.
        sft: flow matching mixed in, or None.
        gate: a held-out flow estimator whose disagreement is written down in checked updates, or None.

    Example::

        loss, logs = RewardBackprop(rollout, verifier, settings.Reward())(batch)
        loss.mean().backward()
    """

    def __init__(
        self, rollout: Rollout, verifier: Verifier, reward: Reward, sft: Sft | None = None, gate: Gate | None = None
    ) -> None:
        self.rollout, self.verifier, self.settings, self.sft, self.gate = rollout, verifier, reward, sft, gate
        self.needs_reference = any("reference" in term.law.needs for term in verifier.terms)

    def __call__(self, batch: Batch, base: Tensor | None = None, checked: bool = False) -> Outcome:
        """Return the loss per sample (B,) and the logged numbers (B,) by name.

        ``base`` is the frozen base's clip from the same noise, where the laws compare with it; ``checked`` asks the gate too.
        """
        loss, logs = self.rewarded(batch, base, checked)
        if self.sft is not None and self.settings.sft_weight > 0:
            matching, more = self.sft(batch)
            loss, logs = loss + self.settings.sft_weight * matching, logs | more
        return loss, logs

    def rewarded(self, batch: Batch, base: Tensor | None, checked: bool) -> Outcome:
        """Return the laws' part: generate with gradient, decode, judge."""
        steps, drawn = self.rollout.sampler.steps, self.settings.truncation
        last = depth(drawn, self.settings.grad_steps, steps, key(batch.draw, "truncation"))
        latents = self.rollout.latents(batch, last)
        examples = [latents, *(self.rollout.again(batch, latents, n) for n in range(1, self.settings.noises))]
        loss, logs = mean([self.judged(example, batch, base, checked) for example in examples])
        if drawn != "fixed":
            logs["grad_steps"] = torch.full_like(loss.detach(), last)
        return loss, logs

    def judged(self, latents: Float[Tensor, "B C F h w"], batch: Batch, base: Tensor | None, checked: bool) -> Outcome:
        """Decode latents and judge them: the laws' loss (B,) and the logged numbers."""
        frames = finite(self.rollout.decode(latents, self.end(batch)))
        verdict, measured = self.judge(frames, batch, base)
        return verdict.loss, self.logged(verdict, measured, batch) | (self.doubted(measured, frames, batch) if checked else {})

    @torch.no_grad()
    def observe(self, frames: Float[Tensor, "B T 3 H W"], batch: Batch) -> dict[str, Tensor]:
        """Return the logged numbers of other frames for the same batch, such as the frozen base's."""
        verdict, measured = self.judge(frames, batch, frames)
        return self.logged(verdict, measured, batch) | self.doubted(measured, frames, batch)

    def end(self, batch: Batch) -> int | None:
        """Return how many frames must be decoded: up to the end of the judged window."""
        length = self.settings.window.frames
        return None if length is None else batch.start + length

    def judge(
        self, frames: Float[Tensor, "B T 3 H W"], batch: Batch, base: Float[Tensor, "B T 3 H W"] | None
    ) -> tuple[Verdict, Measurement]:
        """Return the verdict on the judged window of ``frames``, and what was measured in it."""
        frames = frames[:, : self.end(batch)]
        stretch = slice(batch.start, frames.shape[1])
        masks = self.masks(frames, batch, stretch)
        contact = batch.contact[:, stretch] if self.settings.contact and batch.contact is not None else None
        reference = self.reference(batch, base, stretch) if self.needs_reference else None
        measured = self.verifier.measure(frames[:, stretch], batch.fps, masks, contact, reference, batch.force)
        return self.verifier.judge(measured), measured

    def masks(self, frames: Float[Tensor, "B T 3 H W"], batch: Batch, stretch: slice) -> Tensor | None:
        """Return the objects' masks in the judged stretch of ``frames``; objects are followed from the first frame on."""
        true = None if batch.masks is None else batch.masks[:, : frames.shape[1]].float()
        masks = object_masks(self.settings.mask_source, frames, true)
        return None if masks is None else masks[:, stretch]

    @torch.no_grad()
    def reference(self, batch: Batch, base: Tensor | None, stretch: slice) -> Measurement:
        """Measure the paired clip that laws compare with."""
        if self.settings.reference == "base" and base is not None:
            masks = self.masks(base[:, : stretch.stop], batch, stretch)
            return self.verifier.measure(base[:, stretch], batch.fps, masks=masks)
        if self.settings.reference == "truth" and batch.frames is not None:
            source = self.settings.mask_source
            if source == "none":
                masks = None
            elif batch.masks is not None:
                masks = batch.masks[:, stretch].float()
            else:
                masks = self.masks(batch.frames[:, : stretch.stop], batch, stretch)
            return self.verifier.measure(batch.frames[:, stretch], batch.fps, masks=masks)
        raise InputError("a law of this run compares with a reference clip and there is none; see reward.reference")

    def doubted(self, measured: Measurement, frames: Float[Tensor, "B T 3 H W"], batch: Batch) -> dict[str, Tensor]:
        """Return how far the gate's flow is from the measured one, ``disagreement`` [px/frame]."""
        if self.gate is None or measured.flow is None:
            return {}
        return {"disagreement": self.gate.disagreement(measured, frames[:, batch.start : self.end(batch)])}

    def logged(self, verdict: Verdict, measured: Measurement, batch: Batch) -> dict[str, Tensor]:
        """Return what is written down of a verdict: raw value per law (NaN where it does not apply), diagnostics, IoU."""
        nan = torch.full_like(verdict.loss.detach(), float("nan"))
        logs = {"reward_loss": verdict.loss.detach()}
        for name, residual in verdict.residuals.items():
            logs[f"law/{name}"] = torch.where(residual.valid, residual.value.detach(), nan)
        logs |= {name: value.detach() for name, value in verdict.diagnostics.items()}
        masks = measured.masks
        if masks is not None and batch.masks is not None and self.settings.mask_source != "truth":
            logs["iou"] = iou(masks.detach(), batch.masks[:, batch.start : batch.start + masks.shape[1]].float())
        return logs


def mean(outcomes: list[Outcome]) -> Outcome:
    """Return the mean of several outcomes for one batch; a logged number is that of those where it is defined."""
    if len(outcomes) == 1:
        return outcomes[0]
    losses, logs = zip(*outcomes, strict=True)
    return torch.stack(losses).mean(0), {name: torch.stack([log[name] for log in logs]).nanmean(0) for name in logs[0]}


def iou(masks: Float[Tensor, "B T N H W"], true: Float[Tensor, "B T N H W"]) -> Float[Tensor, "B"]:
    """Return the mean soft intersection over union over frames and objects that are there; NaN if none is.

    ``sum(ab) / (sum a + sum b - sum ab)`` per frame and object, as in arXiv 2503.09595.
    """
    both = (masks * true).sum((-2, -1))
    either = (masks + true - masks * true).sum((-2, -1))
    there = (true.sum((-2, -1)) > 0).to(masks.dtype)
    count = there.sum((1, 2))
    mean = (both / either.clamp(min=1e-6) * there).sum((1, 2)) / count.clamp(min=1)
    return torch.where(count > 0, mean, torch.full_like(mean, float("nan")))
