"""An exponential moving average of a network's weights: the teacher of self-distillation, the EMA of diffusion training.

After optimizer update t (counted from 0) every averaged tensor moves towards the student, ``xi <- m(t) xi + (1 - m(t)) theta``
(Polyak averaging; Tarvainen & Valpola, arXiv 1703.01780, eq. 1). Useful facts: half-life ``ln 2 / -ln m`` updates, lag behind
a steadily drifting weight ``m / (1 - m)`` updates. Choose the decay from the planned length of the run (half-life near 5-10 %
of it): 0.9999 has a half-life of 6931 updates, so a 300-update run would end with a teacher that is 97 % initialisation.

The averages are float32 (float64 for float64 students) whatever the student's dtype: in bfloat16 the step ``1 - m`` is below
the resolution and the average would never move, unless it is rounded stochastically (``dtype=torch.bfloat16``: half the
memory, and right on average). They are updated in place (addresses never change), by name, once per call;
call `TeacherEMA.update` after the optimizer's step, not once per micro-batch of an accumulated gradient.
Sharded students (FSDP2 ``DTensor``) are averaged shard by shard, which needs no communication.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from visviva.errors import InputError
from visviva.optim.rounding import seeded, to_bfloat16


@runtime_checkable
class Decay(Protocol):
    """A decay schedule: update index t (from 0) -> m in [0, 1]."""

    def __call__(self, t: int) -> float:
        """Return the decay of update t."""
        ...


@dataclass(frozen=True)
class Constant:
    """``m(t) = decay`` (MoCo 0.999, ALBEF 0.995)."""

    decay: float = 0.999

    def __call__(self, t: int) -> float:
        """Return the decay of update t."""
        return self.decay


@dataclass(frozen=True)
class Cosine:
    """``m(t) = 1 - (1 - decay)(1 + cos(pi t / total)) / 2``: rises to 1 (BYOL, arXiv 2006.07733, section 3.2; DINO)."""

    decay: float = 0.996
    total: int = 1000

    def __call__(self, t: int) -> float:
        """Return the decay of update t."""
        return 1.0 - (1.0 - self.decay) * (1.0 + math.cos(math.pi * min(t, self.total) / self.total)) / 2.0


@dataclass(frozen=True)
class Linear:
    """``m(t) = decay + t (final - decay) / total``, constant after ``total`` (V-JEPA)."""

    decay: float = 0.998
    final: float = 1.0
    total: int = 1000

    def __call__(self, t: int) -> float:
        """Return the decay of update t."""
        return self.decay + min(t, self.total) * (self.final - self.decay) / self.total


@dataclass(frozen=True)
class Ramp:
    """``m = min(decay, (1 + s) / (10 + s))``, ``s = max(0, t - start)``, and 0 while s = 0 (the default ramp of diffusers)."""

    decay: float = 0.9999
    start: int = 0

    def __call__(self, t: int) -> float:
        """Return the decay of update t."""
        s = max(0, t - self.start)
        return 0.0 if s == 0 else min(self.decay, (1.0 + s) / (10.0 + s))


@dataclass(frozen=True)
class InverseGamma:
    """``m = min(decay, 1 - (1 + s / inv_gamma)^-power)``, ``s = max(0, t - start)``, and 0 while s = 0 (diffusers' warm-up).

    ``power`` 2/3 suits runs of a million updates and more (0.999 after 31.6 thousand), 3/4 shorter ones (after 10 thousand).
    """

    decay: float = 0.9999
    inv_gamma: float = 1.0
    power: float = 2.0 / 3.0
    start: int = 0

    def __call__(self, t: int) -> float:
        """Return the decay of update t."""
        s = max(0, t - self.start)
        return 0.0 if s == 0 else min(self.decay, 1.0 - (1.0 + s / self.inv_gamma) ** -self.power)


@dataclass(frozen=True)
class MeanTeacher:
    """``m = min(1 - 1 / (t + 1), decay)``: a plain average of the weights so far until ``decay`` is reached."""

    decay: float = 0.999

    def __call__(self, t: int) -> float:
        """Return the decay of update t."""
        return min(1.0 - 1.0 / (t + 1.0), self.decay)


def scaled_decay(decay: float, factor: float) -> float:
    """Return the decay for a batch ``factor`` times as large, ``decay ** factor`` (arXiv 2307.13813; secondary).

    >>> round(scaled_decay(0.999, 2), 6)
    0.998001
    """
    return decay**factor


class TeacherEMA:
    """The moving average of a student's weights.

    Args:
        student: the network (its parameters and buffers), or a mapping of names to tensors.
        decay: a schedule of this file, or a number for a constant decay.
        trainable_only: average only parameters that require a gradient (LoRA); nothing else is held or touched.
            Otherwise frozen parameters are copied at each update, not averaged.
        buffers: ``"copy"`` (torch's and MoCo's custom), ``"average"`` (floating-point buffers such as batch statistics are
            averaged, integer ones copied) or ``"ignore"``. With ``trainable_only`` buffers are never held.
        dtype: None takes float32 at least; ``torch.bfloat16`` keeps floating-point averages in bfloat16 with stochastic
            rounding, its random bits depending on ``seed`` and the update's number alone (all ranks agree, resume is exact).
        seed: of the stochastic rounding.
        into: a network of the same structure that becomes the teacher itself: the averages live in its parameters, so it can
            be called at once (momentum encoders). It must be float32 or float64, apart from the student's memory.

    Raises:
        InputError: a decay outside [0, 1], nothing to average, or an ``into`` that does not match the student.

    Example::

        >>> student = torch.nn.Linear(2, 2)
        >>> teacher = TeacherEMA(student, Ramp(0.99))
        >>> teacher.update(student)          # after optimizer.step(); returns the decay
        0.0
        >>> with teacher.applied(student):   # the student wears the teacher's weights inside
        ...     _ = student(torch.ones(1, 2))
    """

    def __init__(
        self,
        student: nn.Module | Mapping[str, Tensor],
        decay: float | Decay = 0.999,
        *,
        trainable_only: bool = False,
        buffers: Literal["copy", "average", "ignore"] = "copy",
        dtype: torch.dtype | None = None,
        seed: int = 0,
        into: nn.Module | None = None,
    ) -> None:
        if dtype not in (None, torch.float32, torch.bfloat16) or (dtype == torch.bfloat16 and into is not None):
            raise InputError(f"the EMA's dtype is {dtype}; allowed are None, float32, and bfloat16 without 'into'")
        self.dtype, self.seed = dtype, seed
        self.decay: Decay = Constant(float(decay)) if isinstance(decay, int | float) else decay
        for t in (0, 1, 10**6):
            if not 0.0 <= self.decay(t) <= 1.0:
                raise InputError(f"the EMA decay {self.decay!r} is {self.decay(t)} at update {t}; it must stay within [0, 1]")
        self.step = 0
        self.trainable_only = trainable_only
        self.buffers = buffers
        tensors = self._tensors(student)
        if not tensors:
            raise InputError("the EMA teacher has nothing to average: no parameter of the student requires a gradient")
        self.shadow: dict[str, Tensor] = self._homes(tensors, into)
        self._averaged = self._which(student, tensors)
        self._stored: dict[str, Tensor] | None = None
        with torch.no_grad():
            for name, tensor in tensors.items():
                _local(self.shadow[name]).copy_(_local(tensor))

    @torch.no_grad()
    def update(self, student: nn.Module | Mapping[str, Tensor]) -> float:
        """Move the averages towards the student once; return the decay that was used."""
        tensors = self._matching(student)
        m = float(self.decay(self.step))
        groups: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
        for name, shadow in self.shadow.items():
            average, current = _local(shadow), _local(tensors[name].detach())
            if name not in self._averaged:
                average.copy_(current)
                continue
            averages, currents = groups.setdefault((average.device, average.dtype), ([], []))
            averages.append(average)
            wide = torch.float32 if average.dtype == torch.bfloat16 else average.dtype
            currents.append(current.to(average.device, wide))
        for (device, dtype), (averages, currents) in groups.items():
            if dtype == torch.bfloat16:
                self._rounded(averages, currents, 1.0 - m, seeded(device, self.seed, self.step))
            else:
                torch._foreach_lerp_(averages, currents, 1.0 - m)
        self.step += 1
        return m

    def _rounded(self, averages: list[Tensor], currents: list[Tensor], weight: float, generator: torch.Generator) -> None:
        for average, current in zip(averages, currents, strict=True):
            average.copy_(to_bfloat16(average.float().lerp(current.float(), weight), generator))

    @torch.no_grad()
    def store(self, student: nn.Module | Mapping[str, Tensor], device: torch.device | str | None = None) -> None:
        """Keep a copy of the student's tensors (on ``device``, e.g. "cpu" to spare accelerator memory) for `restore`."""
        tensors = self._matching(student)
        self._stored = {n: _local(t.detach()).to(device or _local(t).device, copy=True) for n, t in tensors.items()}

    @torch.no_grad()
    def copy_to(self, student: nn.Module | Mapping[str, Tensor]) -> None:
        """Write the averages into the student, in place, in the student's dtype."""
        for name, tensor in self._matching(student).items():
            _local(tensor).copy_(_local(self.shadow[name]))

    @torch.no_grad()
    def restore(self, student: nn.Module | Mapping[str, Tensor]) -> None:
        """Write the tensors kept by `store` back into the student, in place, and forget them."""
        if self._stored is None:
            raise InputError("the EMA teacher has no stored weights to restore; call store() first")
        for name, tensor in self._matching(student).items():
            _local(tensor).copy_(self._stored[name])
        self._stored = None

    @contextmanager
    def applied(self, student: nn.Module | Mapping[str, Tensor], device: torch.device | str | None = None) -> Iterator[None]:
        """Let the student wear the averages inside the ``with``; its own weights always come back."""
        self.store(student, device)
        try:
            self.copy_to(student)
            yield
        finally:
            self.restore(student)

    def state_dict(self) -> dict[str, Any]:
        """Return ``{"step", "decay", "shadow"}``: the count, the schedule in words, and the averages by name (not copied)."""
        return {"step": self.step, "decay": repr(self.decay), "shadow": dict(self.shadow)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; the names, shapes and the schedule must be the same.

        Plain (gathered) tensors load into a sharded teacher: each rank keeps its shard.
        """
        if state["decay"] != repr(self.decay):
            raise InputError(f"the saved EMA used {state['decay']}, this one {self.decay!r}; continue with the same schedule")
        saved = state["shadow"]
        _same_names(self.shadow, saved, "the saved EMA")
        for name, shadow in self.shadow.items():
            if saved[name].shape != shadow.shape:
                raise InputError(f"the saved EMA's {name!r} has shape {tuple(saved[name].shape)}, not {tuple(shadow.shape)}")
            _local(shadow).copy_(_local(_sharded_like(saved[name], shadow)))
        self.step = int(state["step"])

    def _tensors(self, student: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
        if isinstance(student, Mapping):
            return {n: t for n, t in student.items() if t.requires_grad or not self.trainable_only}
        parameters: dict[str, Tensor] = {
            n: p for n, p in student.named_parameters() if p.requires_grad or not self.trainable_only
        }
        if self.trainable_only or self.buffers == "ignore":
            return parameters
        return parameters | dict(student.named_buffers())

    def _which(self, student: nn.Module | Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> frozenset[str]:
        floating = {n for n, t in tensors.items() if t.is_floating_point()}
        if isinstance(student, Mapping):
            return frozenset(floating)
        held = {n for n, _ in student.named_buffers()}
        return frozenset(n for n in floating if (self.buffers == "average" if n in held else tensors[n].requires_grad))

    def _homes(self, tensors: dict[str, Tensor], into: nn.Module | None) -> dict[str, Tensor]:
        if into is None:
            return {n: torch.empty_like(t, dtype=self._kept(t), requires_grad=False) for n, t in tensors.items()}
        held = dict(into.named_parameters()) | dict(into.named_buffers())
        homes = {n: held[n] for n in tensors if n in held}
        _same_names(tensors, homes, "the network given as 'into'")
        for name, home in homes.items():
            if home.dtype != _wide(tensors[name]) or home.data_ptr() == tensors[name].data_ptr():
                raise InputError(f"'into' must be an own float32 copy of the student; its {name!r} is shared or {home.dtype}")
            if home.is_floating_point():
                home.requires_grad_(False)
        return homes

    def _kept(self, tensor: Tensor) -> torch.dtype:
        narrow = self.dtype == torch.bfloat16 and tensor.is_floating_point()
        return torch.bfloat16 if narrow else _wide(tensor)

    def _matching(self, student: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
        tensors = self._tensors(student)
        _same_names(self.shadow, tensors, "the student")
        return tensors


def _local(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a distributed tensor (a view), or the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.dtype in (torch.bfloat16, torch.float16) else tensor.dtype


def _sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    if isinstance(like, DTensor) and not isinstance(tensor, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor


def _same_names(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], what: str) -> None:
    missing, extra = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    if missing or extra:
        raise InputError(
            f"{what} does not match the EMA teacher: {len(missing)} names missing {missing[:3]}, "
            f"{len(extra)} unknown {extra[:3]}"
        )
