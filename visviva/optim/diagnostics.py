"""What an optimizer does, step by step: updates per parameter, update-to-weight ratio, effective step size, gradient spikes.

Of every parameter and recorded step, with the move ``d = p_before - p_after`` and gradient g::

    ratio = |d| / |p_before|          about 1e-3 in healthy training (a rule of thumb)
    effective step = |d| / |g|        the rate with which plain gradient descent would have moved as far
    turn = angle(p_before, p_after)   radians; what counts where a normalisation follows (AdamP, arXiv 2006.08217)

The gradient spike score of an entry is ``|g_i|`` over the running mean of ``|g_i|``; SPAM's authors (arXiv 2501.06842) plot
entries above 50 (the score: primary; whether the mean includes the present step is not said: here it is of the earlier steps).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.optim.arena import local
from visviva.optim.transform import check

Row = dict[str, Any]


def to_json(rows: list[Row], path: str | Path | None = None) -> str:
    """Return rows as JSON, numbers that are not finite as null; write it to ``path`` too where one is given."""
    plain = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]
    text = json.dumps(plain)
    if path is not None:
        Path(path).write_text(text)
    return text


class _Watch:
    """Hooks around an optimizer's step, every ``every`` steps; rows wait on the device until they are asked for."""

    columns: tuple[str, ...] = ()

    def __init__(self, optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor] | None, every: int) -> None:
        if every < 1:
            raise InputError(f"{type(self).__name__}: every is {every}; allowed is a whole number of steps from 1 on")
        self.optimizer, self.every, self.step = optimizer, every, 0
        self.names = {id(p): name for name, p in (names or {}).items()}
        self._waiting: list[tuple[int, list[tuple[str, float]], Tensor]] = []
        self._rows: list[Row] = []
        self._handles = [
            optimizer.register_step_pre_hook(lambda *_: self._enter()),
            optimizer.register_step_post_hook(lambda *_: self._leave()),
        ]

    def rows(self) -> list[Row]:
        """Return what was recorded, one dictionary per parameter and step."""
        for step, heads, values in self._waiting:
            for (name, lr), numbers in zip(heads, values.tolist(), strict=True):
                self._rows.append({"step": step, "name": name, "lr": lr, **self._row(numbers)})
        self._waiting.clear()
        return self._rows

    def remove(self) -> None:
        """Take the hooks away; what was recorded stays."""
        for handle in self._handles:
            handle.remove()

    def _row(self, numbers: list[float]) -> Row:
        return dict(zip(self.columns, numbers, strict=True))

    def _parameters(self) -> list[tuple[str, float, Tensor]]:
        found, count = [], 0
        for group in self.optimizer.param_groups:
            given = group.get("param_names")
            for i, p in enumerate(group["params"]):
                name = self.names.get(id(p)) or (given[i] if given else str(count))
                found.append((name, float(group["lr"]), p))
                count += 1
        return found

    def _due(self) -> bool:
        return (self.step - 1) % self.every == 0

    def _enter(self) -> None:
        self.step += 1

    def _leave(self) -> None:
        raise NotImplementedError

    def _wait(self, heads: list[tuple[str, float]], values: list[Tensor]) -> None:
        if values:
            self._waiting.append((self.step, heads, torch.stack([v.to(values[0].device) for v in values])))


class UpdateRecorder(_Watch):
    """Records what each step does to each parameter.

    Args:
        optimizer: any ``torch.optim.Optimizer``.
        names: parameters by name (``dict(model.named_parameters())``); else the names that the optimizer has, or numbers.
        every: recorded steps; a recorded step keeps a copy of the weights while it runs.
        keep: called with (step, name, p_before - p_after) of every recorded parameter, for whole updates.

    Columns: step, name, lr, update, weight, gradient (2-norms; of a sharded parameter those of this process's shard), ratio,
    effective_step, turn.

    Example::

        recorder = UpdateRecorder(optimizer, dict(model.named_parameters()), every=100)
        ...
        to_json(recorder.rows(), "updates.json")
    """

    columns = ("update", "weight", "gradient", "ratio", "effective_step", "turn")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        names: Mapping[str, Tensor] | None = None,
        every: int = 1,
        keep: Callable[[int, str, Tensor], None] | None = None,
    ) -> None:
        self.keep = keep
        self._before: dict[int, tuple[Tensor, Tensor | None]] = {}
        super().__init__(optimizer, names, every)

    @torch.no_grad()
    def _enter(self) -> None:
        super()._enter()
        if self._due():
            for _, _, p in self._parameters():
                gradient = None if p.grad is None else _norm(local(p.grad))
                self._before[id(p)] = local(p).detach().clone(), gradient

    @torch.no_grad()
    def _leave(self) -> None:
        if not self._due():
            return
        heads, values = [], []
        for name, lr, p in self._parameters():
            before, gradient = self._before.pop(id(p), (None, None))
            if before is None or p.grad is None:
                continue
            after = local(p).detach()
            heads.append((name, lr))
            values.append(_numbers(before, after, _norm(local(p.grad)) if gradient is None else gradient))
            if self.keep is not None:
                self.keep(self.step, name, before - after)
        self._wait(heads, values)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.detach().double())


def _numbers(before: Tensor, after: Tensor, gradient: Tensor) -> Tensor:
    old, new = before.double().flatten(), after.double().flatten()
    update, weight = torch.linalg.vector_norm(old - new), torch.linalg.vector_norm(old)
    after_norm = torch.linalg.vector_norm(new)
    half = torch.linalg.vector_norm(old / weight - new / after_norm) / 2  # precise also for small angles
    turn = torch.where((weight > 0) & (after_norm > 0), 2 * torch.asin(half.clamp_max(1.0)), 0.0)
    return torch.stack([update, weight, gradient, update / weight, update / gradient, turn])


class SpikeLog(_Watch):
    """Counts entries of the gradients whose spike score passes a threshold, as the optimizer receives them.

    Args:
        optimizer: any; scores are taken before its step (with a closure: after it).
        names, every: as in `UpdateRecorder`; the mean takes in every recorded step.
        threshold: of the score.
        wait: recorded steps of a parameter before its scores count.

    Columns: step, name, lr, spikes (entries above the threshold), score (largest), index (its place in the flattened gradient),
    gradient (its value). Only parameters with a spike have rows. Keeps one number per weight.

    Example::

        log = SpikeLog(optimizer, dict(model.named_parameters()))
        ...
        worst = max(log.rows(), key=lambda row: row["score"], default=None)
    """

    columns = ("spikes", "score", "index", "gradient")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        names: Mapping[str, Tensor] | None = None,
        every: int = 1,
        threshold: float = 50.0,
        wait: int = 20,
    ) -> None:
        check("SpikeLog: threshold", threshold, 1.0, math.inf)
        self.threshold, self.wait = threshold, wait
        self._means: dict[int, tuple[Tensor, int]] = {}
        self._done: set[int] = set()
        super().__init__(optimizer, names, every)

    def rows(self) -> list[Row]:
        """Return the recorded spikes."""
        self._rows = [row for row in super().rows() if row["spikes"] > 0]
        return self._rows

    def _row(self, numbers: list[float]) -> Row:
        spikes, score, index, gradient = numbers
        return {"spikes": int(spikes), "score": score, "index": int(index), "gradient": gradient}

    def _enter(self) -> None:
        super()._enter()
        self._done.clear()
        self._look()

    def _leave(self) -> None:
        self._look()

    @torch.no_grad()
    def _look(self) -> None:
        if not self._due():
            return
        heads, values = [], []
        for name, lr, p in self._parameters():
            if p.grad is None or p.numel() == 0 or id(p) in self._done:
                continue
            self._done.add(id(p))
            found = self._scores(id(p), local(p.grad).detach().flatten())
            if found is not None:
                heads.append((name, lr))
                values.append(found)
        self._wait(heads, values)

    def _scores(self, key: int, gradient: Tensor) -> Tensor | None:
        size = gradient.to(torch.promote_types(gradient.dtype, torch.float32)).abs()
        mean, count = self._means.get(key, (torch.zeros_like(size), 0))
        found = None
        if count >= max(self.wait, 1):
            score = torch.where(mean > 0, size / mean, 0.0)
            index = score.argmax()
            numbers = ((score > self.threshold).sum(), score[index], index, gradient[index])
            found = torch.stack([n.double() for n in numbers])
        self._means[key] = mean + (torch.nan_to_num(size, 0.0, 0.0) - mean) / (count + 1), count + 1
        return found
