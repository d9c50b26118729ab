"""Group relative policy optimisation of a flow model: groups of clips from one noise, ranked by the laws.

Every sample of a batch becomes a group: the same condition and the same first noise, other noise on the way
(`visviva.pipelines.posttrain.sde`, where the sources are). The clips are judged by the verifier without gradient, so any probe
will do. The steps' log-probabilities are then computed once more with gradient, each recomputed in the backward pass, so memory
is that of one velocity (of ``together`` clips) whatever the group.

Options: a KL term to the frozen reference, ``|mu - mu_ref|^2 / (2 std^2)``; several updates from one set of clips, which is
what the clipped ratio is for; and the mimicry-discovery cycle of PhysRVG (arXiv 2601.11087, secondary): groups whose clips are
too far from the laws learn from the true clip by flow matching as well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from visviva.configs import posttrain as settings
from visviva.errors import InputError
from visviva.pipelines.posttrain.batch import Batch
from visviva.pipelines.posttrain.plan import key
from visviva.pipelines.posttrain.reward_backprop import RewardBackprop
from visviva.pipelines.posttrain.rollout import finite, precision
from visviva.pipelines.posttrain.sde import advantages, clipped, steps
from visviva.pipelines.posttrain.sft import Outcome


@dataclass(frozen=True)
class Explored:
    """What a set of groups went through; members of a group lie in a row.

    Attributes:
        states: latents at every noise level, each (B G, C, F, h, w).
        before: log-probability of each step with noise when it was taken, (steps, B G).
        advantage: of each clip, (B, G).
        logs: numbers to write down, (B,) each.
        loss: weighted laws of each clip, (B, G).
    """

    states: list[Tensor]
    before: Tensor
    advantage: Tensor
    logs: dict[str, Tensor]
    loss: Tensor


class Grpo:
    """The GRPO objective: a batch in, the loss of each sample and what to log out.

    Args:
        judge: generates, decodes and judges; its verifier need not be differentiable.
        grpo: settings.
        reference: context in which the backbone is the frozen reference.
        kept: how many micro-batches are remembered for further updates from the same clips.
        shape: of the latents, (B, C, F, h, w), for families whose noise levels depend on it.
        together: how many clips the networks are given at once.
    """

    def __init__(
        self,
        judge: RewardBackprop,
        grpo: settings.Grpo,
        reference: Callable[[], AbstractContextManager[None]],
        kept: int = 1,
        shape: tuple[int, ...] | None = None,
        together: int = 1,
    ) -> None:
        self.judge, self.settings, self.reference, self.kept, self.together = judge, grpo, reference, kept, together
        self.rollout, self.backbone = judge.rollout, judge.rollout.backbone
        sampler = self.rollout.sampler
        if self.backbone.kind != "flow":
            raise InputError(
                f"method: grpo samples by the stochastic equation of a flow, but {self.backbone.family} predicts "
                f"{self.backbone.kind}; use reward_backprop or refl with it"
            )
        self.steps = steps(self.backbone.sigmas(sampler.steps, sampler.shift, shape).tolist(), grpo.sde, grpo.strength)
        self.noisy = [i for i, step in enumerate(self.steps) if step.std > 0]
        self.memory: dict[tuple[int, ...], Explored] = {}

    def __call__(self, batch: Batch, base: Tensor | None = None, checked: bool = False) -> Outcome:
        """Return the loss per sample (B,) and the logged numbers (B,) by name."""
        group = self.settings.group
        many = repeated(batch, group)
        explored = self.remembered(batch, many, base, checked)
        chosen = self.chosen(batch.draw)
        losses: list[Tensor] = []
        ratios: list[Tensor] = []
        apart: list[Tensor] = []
        for i in chosen:
            mean = self.mean(i, explored.states[i], many)
            now = self.steps[i].log_probability(mean, explored.states[i + 1], self.free(many))
            loss, ratio = clipped(explored.advantage.flatten(), now, explored.before[self.noisy.index(i)], self.settings.clip)
            if self.settings.kl > 0:
                far = self.divergence(i, mean, explored.states[i], many)
                loss, apart = loss + self.settings.kl * far, [*apart, far.detach()]
            losses.append(loss)
            ratios.append(ratio.detach())
        loss = torch.stack(losses).mean(0).view(-1, group).mean(1)
        off = (torch.stack(ratios) - 1).abs()
        logs = explored.logs | {
            "ratio_off": off.mean(0).view(-1, group).mean(1),
            "clipped": (off > self.settings.clip).float().mean(0).view(-1, group).mean(1),
        }
        if apart:
            logs["kl"] = torch.stack(apart).mean(0).view(-1, group).mean(1)
        return self.mimicry(loss, logs, explored, batch)

    def remembered(self, batch: Batch, many: Batch, base: Tensor | None, checked: bool) -> Explored:
        """Return the groups of this batch: those of an earlier update from the same noise, or new ones."""
        name = tuple(batch.keys)
        if self.settings.reuse == 1:
            return self.explore(many, base, checked)
        if name not in self.memory:
            while len(self.memory) >= self.kept:
                self.memory.pop(next(iter(self.memory)))
            self.memory[name] = self.explore(many, base, checked=True)
        return self.memory[name]

    @torch.no_grad()
    def explore(self, many: Batch, base: Tensor | None, checked: bool = False) -> Explored:
        """Sample every member with noise of its own, decode and judge them; ``checked`` asks the gate too."""
        x = self.backbone.start(many.noise.float(), many.condition)
        states, before = [x], []
        for i, step in enumerate(self.steps):
            mean = self.mean(i, x, many)
            reached = mean if not step.std else mean + step.std * self.noise(i, many)
            x = self.backbone.hold(reached, many.condition)
            if step.std:
                before.append(step.log_probability(mean, x, self.free(many)))
            states.append(x)
        end = self.judge.end(many)
        frames = finite(torch.cat([self.rollout.decode(part, end) for part in x.split(self.together)]))
        base = None if base is None else base.repeat_interleave(self.settings.group, 0)
        verdict, measured = self.judge.judge(frames, many, base)
        reward = verdict.log_reward.view(-1, self.settings.group)
        advantage = advantages(reward, self.settings.limit)
        numbers = self.judge.logged(verdict, measured, many) | (self.judge.doubted(measured, frames, many) if checked else {})
        logs = {n: v.view(reward.shape).float().nanmean(1) for n, v in numbers.items()}
        logs |= {"reward_spread": reward.std(1), "taught": (advantage != 0).any(1).float()}
        return Explored(states, torch.stack(before), advantage, logs, verdict.loss.view(reward.shape))

    def mean(self, i: int, x: Tensor, many: Batch) -> Tensor:
        """Mean of what step i reaches from x; ``together`` clips at a time, recomputed in the backward pass."""
        step, scale, size = self.steps[i], self.rollout.sampler.guidance_scale, self.together

        def velocity(part: Tensor, at: int) -> Tensor:
            level = torch.full((len(part),), step.sigma, device=x.device, dtype=x.dtype)
            with precision(x.device, self.rollout.autocast):
                return self.backbone.velocity(part, level, many.condition[at : at + size], scale)

        starts = range(0, len(x), size)
        if torch.is_grad_enabled():
            parts = [recompute(velocity, x[k : k + size], k, use_reentrant=False) for k in starts]
        else:
            parts = [velocity(x[k : k + size], k) for k in starts]
        return step.mean(x, torch.cat(parts))

    def divergence(self, i: int, mean: Tensor, x: Tensor, many: Batch) -> Float[Tensor, " B"]:
        """KL divergence of step i from the reference's, averaged over a clip's numbers."""
        with self.reference():
            wanted = self.mean(i, x, many)
        return ((mean - wanted) / self.steps[i].std).square().flatten(1).mean(1) / 2

    def chosen(self, seed: int) -> list[int]:
        """Steps that are trained in this update, a random share of those with noise."""
        count = max(1, round(self.settings.trained * len(self.noisy)))
        order = torch.randperm(len(self.noisy), generator=torch.Generator().manual_seed(key(seed, "steps"))).tolist()
        return sorted(self.noisy[k] for k in order[:count])

    def noise(self, i: int, many: Batch) -> Tensor:
        """Noise of step i, keyed by sample and member."""
        shape = many.noise.shape[1:]
        made = [
            torch.randn(shape, generator=torch.Generator().manual_seed(key(k, "sde", i, n % self.settings.group)))
            for n, k in enumerate(many.keys)
        ]
        return torch.stack(made).to(many.noise.device)

    def free(self, many: Batch) -> Tensor | None:
        """Numbers that the sampler decides: 0 where a first frame is held among the latents."""
        none = torch.zeros_like(many.noise[:1])
        one = many.condition[0:1]
        return (self.backbone.hold(none, one) != self.backbone.hold(none + 1, one)).to(none.dtype)

    def mimicry(self, loss: Tensor, logs: dict[str, Tensor], explored: Explored, batch: Batch) -> Outcome:
        """Add flow matching on the true clip where the group's clips are too far from the laws."""
        threshold = self.settings.mimicry
        if threshold is None or self.judge.sft is None:
            return loss, logs
        far = (explored.loss.mean(1) > threshold).to(loss.dtype)
        matching, more = self.judge.sft(batch)
        return loss + far * matching, logs | more | {"mimicry": far}


def repeated(batch: Batch, times: int) -> Batch:
    """Every sample of the batch ``times`` times in a row: its condition, first noise and what is known of its clip."""
    if times < 2:
        raise InputError(f"grpo.group {times}: a group of one clip has nothing to be compared with; give 2 or more")
    tensors: dict[str, Any] = {}
    for name in ("noise", "fps", "latents", "frames", "masks", "contact", "force"):
        value = getattr(batch, name)
        tensors[name] = None if value is None else value.repeat_interleave(times, 0)
    keys = [k for k in batch.keys for _ in range(times)]
    return replace(batch, condition=batch.condition.repeat(times), keys=keys, **tensors)
