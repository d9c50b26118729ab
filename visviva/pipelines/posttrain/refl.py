"""ReFL: the reward of the clean clip that one late, random sampler step predicts, with gradient through that step alone.

ImageReward's reward feedback learning (arXiv 2304.05977): ``weight relu(threshold - r)``, weight 1e-3 and threshold 2 for its
learned reward. Our laws are losses, so the threshold is taken on them: ``relu(loss - good)``, clips better than ``good`` being
left alone. It is usually paired with flow matching on true clips (reward.sft_weight).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visviva.configs import posttrain as settings
from visviva.pipelines.posttrain.batch import Batch
from visviva.pipelines.posttrain.plan import key
from visviva.pipelines.posttrain.reward_backprop import RewardBackprop
from visviva.pipelines.posttrain.rollout import Rollout, precision
from visviva.pipelines.posttrain.sft import Outcome


@dataclass(frozen=True)
class Predicted(Rollout):
    """A rollout that stops at a random step of its last part and decodes the clean clip which the model predicts there.

    Attributes:
        late: share of the steps among which it stops.
    """

    late: float = 0.25

    def latents(self, batch: Batch, grad_steps: int = 0) -> Tensor:
        """Return predicted clean latents, with gradient through the last velocity; the update draws the step."""
        levels = self.backbone.sigmas(self.sampler.steps, self.sampler.shift, tuple(batch.noise.shape)).tolist()
        first = min(self.sampler.steps - 1, round((1 - self.late) * self.sampler.steps))
        generator = torch.Generator().manual_seed(key(batch.draw, "refl"))
        last = int(torch.randint(first, self.sampler.steps, (), generator=generator))
        x = self.backbone.start(batch.noise.float(), batch.condition)
        with precision(batch.noise.device, self.autocast):
            for i in range(last + 1):
                level = torch.full((len(x),), levels[i], device=x.device, dtype=x.dtype)
                with torch.set_grad_enabled(i == last and torch.is_grad_enabled()):
                    v = self.backbone.velocity(x, level, batch.condition, self.sampler.guidance_scale).float()
                    x = x - levels[i] * v if i == last else x + (levels[i + 1] - levels[i]) * v
        return self.backbone.trim(self.backbone.hold(x, batch.condition))


class Refl:
    """The ReFL objective: a batch in, the loss of each sample and what to log out.

    Args:
        judge: generates (by a `Predicted` rollout), decodes and judges.
        refl: settings.
    """

    def __init__(self, judge: RewardBackprop, refl: settings.Refl) -> None:
        self.judge, self.settings = judge, refl

    def __call__(self, batch: Batch, base: Tensor | None = None, checked: bool = False) -> Outcome:
        """Return the loss per sample (B,) and the logged numbers (B,) by name."""
        loss, logs = self.judge.rewarded(batch, base, checked)
        loss = self.settings.weight * torch.relu(loss - self.settings.good)
        if self.judge.sft is not None and self.judge.settings.sft_weight > 0:
            matching, more = self.judge.sft(batch)
            loss, logs = loss + self.judge.settings.sft_weight * matching, logs | more
        return loss, logs
