"""Which object is which: identities that survive occlusion, crossing and re-entry, by appearance with momentum (CTVIS).

Each identity keeps a memory embedding m and its last raw embeddings e_1..e_n. A new embedding e is mixed in as far as it is
like what was seen before (similarity-guided fusion, CTVIS, arXiv 2307.12616):

    beta = scale * max(0, mean_j cos(e_j, e)),   m <- (1 - beta) m + beta e

so an occluded or odd view hardly moves m. Detections and memories are matched by bi-softmax over ``S = e . m / temperature``,

    M = (softmax over memories + softmax over detections) / 2,

best pair first. ``scale`` is not in the paper (1 there): a slower memory is better where objects are often hidden. Pairs below
``least_cosine`` never match: a softmax over a single memory is 1 whatever it looks like. Where places are given, the squared
distance to where constant velocity would put the identity enters S, in units of ``reach``, which grows while it is unseen.

Unlike the published tracker: pairs are taken best first over the whole frame (it goes through detections by their score, which
ours have not), embeddings have unit length, and the raw ones fill a ring.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from visviva.errors import InputError


@dataclass(frozen=True)
class Identity:
    """Gives detections their identities; a frozen setting, called on a batch of clips.

    Attributes:
        memory: "guided" (the rule above), "last" (m is the last embedding: the baseline), or a number in (0, 1], the fixed
            weight of a new embedding.
        scale: factor on the guided weight.
        temperature: of the bi-softmax, for cosines.
        threshold: bi-softmax score that a match must exceed.
        least_cosine: cosine that a match must exceed.
        patience: frames after which an unseen identity is dead and never matched again.
        slots: identities that a clip can have at most; further births are refused their identity (-1).
        bank: raw embeddings kept per identity.
        reach: how far an object may be from where constant velocity puts it, one standard deviation [px]; None looks at
            appearance alone.

    Raises:
        InputError: an unknown memory rule.

    Example::

        ids = Identity()(looks, present)                    # (B, T, K)
        ids = Identity(reach=6.0)(looks, present, places)
    """

    memory: str | float = "guided"
    scale: float = 0.25
    temperature: float = 0.05
    threshold: float = 0.3
    least_cosine: float = 0.5
    patience: int = 20
    slots: int = 16
    bank: int = 10
    reach: float | None = None

    def __post_init__(self) -> None:
        """Refuse memory rules that do not exist."""
        fixed = isinstance(self.memory, float) and 0 < self.memory <= 1
        if self.memory not in ("guided", "last") and not fixed:
            raise InputError(f"the memory rule {self.memory!r} is not known; give 'guided', 'last', or a weight in (0, 1]")

    @torch.no_grad()
    def __call__(
        self,
        looks: Float[Tensor, "B T K D"],
        present: Bool[Tensor, "B T K"],
        places: Float[Tensor, "B T K 2"] | None = None,
    ) -> Int[Tensor, "B T K"]:
        """Return the identity of each detection, counted from 0 in order of birth; -1 where there is no detection.

        Args:
            looks: embeddings of up to K detections per frame, in any order; their length does not matter.
            present: which of them exist.
            places: their centres (x, y) [px]; needed with ``reach``.

        The recursion runs over frames and, within a frame, over at most K matches; clips go side by side.
        """
        if self.reach is not None and places is None:
            raise InputError(f"reach={self.reach} compares places, and none are given; give places (B, T, K, 2) or reach=None")
        looks = torch.nn.functional.normalize(looks.detach(), dim=-1)
        state = _State.empty(looks, self.slots, self.bank)
        found = []
        for t in range(looks.shape[1]):
            place = None if places is None else places[:, t].detach()
            ids = self._match(state, looks[:, t], present[:, t], place, t)
            ids = _born(state, ids, present[:, t])
            self._remember(state, ids, looks[:, t], place, t)
            found.append(ids)
        return torch.stack(found, dim=1)

    def _match(self, state: _State, look: Tensor, here: Tensor, place: Tensor | None, t: int) -> Tensor:
        """Pairs of detection and living identity, best first, shape (B, K); -1 unmatched."""
        cosine = torch.nn.functional.normalize(look, dim=-1) @ torch.nn.functional.normalize(state.memory, dim=-1).mT
        alive = (state.seen >= 0) & (t - state.seen <= self.patience)
        allowed = here[:, :, None] & alive[:, None]
        likeness = cosine / self.temperature
        if self.reach is not None and place is not None:
            gap = (t - state.seen).clamp(min=1).to(look.dtype)
            ahead = state.place + state.velocity * gap[..., None]
            stray = (place[:, :, None] - ahead[:, None]).square().sum(-1)
            likeness = likeness - 0.5 * stray / (self.reach * gap[:, None].sqrt()).square()
        score = bi_softmax(likeness, allowed)
        score = torch.where(allowed & (cosine > self.least_cosine) & (score > self.threshold), score, 0.0)
        ids = torch.full_like(here, -1, dtype=torch.long)
        for _ in range(look.shape[1]):
            best, at = score.flatten(1).max(1)
            row, column = at // score.shape[2], at % score.shape[2]
            ids.scatter_(1, row[:, None], torch.where(best > 0, column, ids.gather(1, row[:, None])[:, 0])[:, None])
            taken = torch.nn.functional.one_hot(row, score.shape[1])[:, :, None]
            taken = taken + torch.nn.functional.one_hot(column, score.shape[2])[:, None]
            score = torch.where(taken > 0, 0.0, score)
        return ids

    def _remember(self, state: _State, ids: Tensor, look: Tensor, place: Tensor | None, t: int) -> None:
        """Mix the detections of this frame into the memories of their identities."""
        chosen = torch.nn.functional.one_hot(ids + 1, self.slots + 1)[..., 1:].to(look.dtype)  # (B, K, M)
        updated = chosen.sum(1) > 0
        new = torch.einsum("bkm,bkd->bmd", chosen, look)
        fresh = state.count == 0
        weight = torch.where(fresh, 1.0, self._weight(state, new))[..., None]
        state.memory = torch.where(updated[..., None], torch.lerp(state.memory, new, weight), state.memory)
        slot = torch.nn.functional.one_hot(state.count % self.bank, self.bank)[..., None] > 0
        state.raw = torch.where(updated[..., None, None] & slot, new[:, :, None], state.raw)
        if place is not None:
            at = torch.einsum("bkm,bkc->bmc", chosen, place)
            gap = (t - state.seen).clamp(min=1)[..., None]
            speed = torch.where(fresh[..., None], 0.0, (at - state.place) / gap)
            mixed = torch.where((state.count < 2)[..., None], speed, 0.5 * state.velocity + 0.5 * speed)
            state.velocity = torch.where(updated[..., None], mixed, state.velocity)
            state.place = torch.where(updated[..., None], at, state.place)
        state.count = state.count + updated.long()
        state.seen = torch.where(updated, t, state.seen)

    def _weight(self, state: _State, new: Tensor) -> Tensor:
        """Weight of a new embedding in each memory, shape (B, M)."""
        if self.memory == "last":
            return torch.ones_like(new[..., 0])
        if isinstance(self.memory, float):
            return torch.full_like(new[..., 0], self.memory)
        filled = state.count.clamp(max=self.bank)
        cosines = torch.einsum("bmnd,bmd->bmn", state.raw, new)  # empty entries are zero
        return self.scale * (cosines.sum(-1) / filled.clamp(min=1)).clamp(min=0, max=1)


@dataclass
class _State:
    """What is remembered of the identities of each clip while its frames go by."""

    memory: Tensor  # (B, M, D)
    raw: Tensor  # (B, M, bank, D), zero where empty
    count: Tensor  # (B, M), how often seen
    seen: Tensor  # (B, M), frame of the last sighting, -1 unborn
    place: Tensor  # (B, M, 2)
    velocity: Tensor  # (B, M, 2)

    @classmethod
    def empty(cls, looks: Tensor, slots: int, bank: int) -> _State:
        clips, size = looks.shape[0], looks.shape[-1]
        count = torch.zeros(clips, slots, dtype=torch.long, device=looks.device)
        place = looks.new_zeros(clips, slots, 2)
        return cls(
            looks.new_zeros(clips, slots, size), looks.new_zeros(clips, slots, bank, size), count, count - 1, place, place
        )


def bi_softmax(likeness: Float[Tensor, "B K M"], allowed: Bool[Tensor, "B K M"]) -> Float[Tensor, "B K M"]:
    """Return the mean of the softmax over memories and the softmax over detections, among allowed pairs; 0 elsewhere.

    Where every pair is allowed, all entries of a clip sum to (K + M) / 2.
    """
    logits = torch.where(allowed, likeness, -torch.inf)
    both = [torch.softmax(logits, dim=dim) for dim in (1, 2)]
    return (torch.nan_to_num(both[0]) + torch.nan_to_num(both[1])) / 2


def _born(state: _State, ids: Tensor, here: Tensor) -> Tensor:
    """Unmatched detections start the next free identities, in their order."""
    unborn = here & (ids < 0)
    taken = (state.seen >= 0).sum(1, keepdim=True)
    number = taken + unborn.long().cumsum(1) - 1
    room = number < state.seen.shape[1]
    return torch.where(unborn & room, number, ids)
