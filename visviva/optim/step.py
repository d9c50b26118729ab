"""One step of an optimizer: the stages of every chain over its segments, in turn where sums over all parameters are needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from visviva.optim import chain as chains
from visviva.optim import fused
from visviva.optim.arena import Segment
from visviva.optim.groups import check_rate
from visviva.optim.transform import Transform


class Plan:
    """What follows from a chain alone; kept from step to step."""

    def __init__(self, chain: tuple[Transform, ...]) -> None:
        self.chain, self.stages, self.kept = chain, chains.stages(chain), chains.kept(chain)
        self.changes_gradient = any(t.place == "gradient" for t in chain)
        self.adamw = fused.is_adamw(chain)
        self.transforms = [transform for stage in self.stages for transform in stage.transforms]
        self.programs: dict[int, chains.Program] = {}
        self.functions: dict[Any, Callable[..., None]] = {}

    @classmethod
    def of(cls, optimizer: Any, number: int, kind: str) -> Plan:
        """Return the plan of a group's chain, made anew where its hyper-parameters have changed."""
        chain, known = optimizer.chain(optimizer.param_groups[number], kind), optimizer._plans.get((number, kind))
        if known is None or known.chain != chain:
            known = optimizer._plans[number, kind] = cls(chain)
        return known


class Turn:
    """One step of the segments that share group, chain, dtype and step count."""

    def __init__(self, optimizer: Any, key: Any, segments: list[Segment]) -> None:
        number, kind, *_ = key
        lr = optimizer.param_groups[number]["lr"]
        check_rate(optimizer, lr)
        self.plan, self.segments, first = Plan.of(optimizer, number, kind), segments, segments[0]
        self.stages, self.adopt, self.lr = self.plan.stages, optimizer.adopt, lr
        many, changes = len(self.stages) > 1, self.plan.changes_gradient
        buffers = not many or (first.u is not None and (not changes or first.changed_g is not None))
        self.fits = first.kept == self.plan.kept and buffers
        self.t = None if optimizer.capturable else float(first.t + 1)
        self.fused = self.plan.adamw and self.t is not None and all(fused.fits(s, lr) for s in segments)
        if self.fused:
            return
        t: Any = first.step[0].double() + 1 if optimizer.capturable else self.t
        self.values = chains.numbers(self.plan.transforms, t, lr)
        self.scalars = _vector([lr, *(v for own in self.values for _, v in own), t], first.device, optimizer.capturable)
        self.gradients = [s.gather() for s in segments]
        self.compiled = optimizer._compiles(segments)

    def run(self, k: int, measured: Tensor | None) -> None:
        """Run stage ``k`` on all segments."""
        if self.fused:
            for s in self.segments:
                fused.step(s, fused.gradients(s), self.plan.chain, self.lr, self.t or 0.0)
            return
        stage = self.stages[k]
        function = functools.partial(self._function, k)
        for i, s in enumerate(self.segments):
            if stage.batched:
                chains.run_batched(function, s, self.gradients[i], measured, self.scalars, not stage.alone)
            else:
                states = [*s.state.values(), *s.scales.values()]
                function()(s.p, self.gradients[i], s.u, s.changed_g, states, measured, self.scalars)
                chains.reset_small(s, self.plan.programs[k], self.scalars)
            if s.changed_g is not None and any(t.place == "gradient" for t in stage.transforms):
                self.gradients[i] = s.changed_g

    def _function(self, k: int, ndim: int = 0) -> Callable[..., None]:
        compiled = self.compiled and all(transform.compiles(self.t) for transform in self.stages[k].transforms)
        key = (k, ndim, compiled, self.t if ndim and not compiled else None)
        functions = self.plan.functions
        if key not in functions:
            stale = [known for known in functions if known[:3] == key[:3]]
            for known in stale:
                del functions[known]
            functions[key] = self._built(k, ndim, compiled)
        return functions[key]

    def _built(self, k: int, ndim: int, compiled: bool) -> Callable[..., None]:
        kept, first = self.segments[0].kept, self.segments[0]
        program = self.plan.programs[k] = chains.program(self.stages[k], self.values)
        names = (*first.state, *(first.buckets[0].state if ndim else ()))
        moments = tuple(name for name in names if kept[name].moment)
        build = chains.compiled if compiled else chains.stage_function
        return build(program, names, moments, k == 0, k == len(self.stages) - 1, ndim, self.t if ndim else None, first.powers)

    def measure(self, k: int) -> Tensor | None:
        """Return what stage ``k`` measures, over this turn's parameters (all processes' shards)."""
        stage = self.stages[k]
        transform, parts = stage.transforms[0], []
        for i, s in enumerate(self.segments):
            g = self.gradients[i]
            if stage.batched:
                parts += [transform.measure(chains.batched_step(b, s, g, k == 0, self.scalars, self.t)) for b in s.filled()]
            else:
                part = transform.measure(chains.flat_step(s, g, k == 0, self.scalars))
                parts.append(_over_processes(part, s.parameters[0]) if s.sharded else part)
        return _combined(transform, parts) if parts else None

    def close(self) -> None:
        """Write back what was copied, and count the step."""
        for segment in self.segments:
            segment.scatter()
            segment.t += 1
            segment.step += 1
            if self.adopt and not segment.direct and not segment.adopted:
                segment.adopt_gradients()


def measured_sums(turns: Sequence[Turn], k: int) -> dict[type[Transform], Tensor]:
    """Return what the transforms of stage ``k`` measure over all turns, by kind of transform."""
    found: dict[type[Transform], list[Tensor]] = {}
    for turn in turns:
        part = turn.measure(k) if turn.stages[k].measures else None
        if part is not None:
            found.setdefault(type(turn.stages[k].transforms[0]), []).append(part)
    return {kind: _combined(kind, parts) for kind, parts in found.items()}


def _combined(transform: Transform | type[Transform], parts: Sequence[Tensor]) -> Tensor:
    stacked = torch.stack([part.to(parts[0]) for part in parts])
    return stacked.amax(0) if transform.combine == "max" else stacked.sum(0)


def _over_processes(part: Tensor, like: Any) -> Tensor:
    for dimension, placement in enumerate(like.placements):
        if placement.is_shard():
            torch.distributed.all_reduce(part, group=like.device_mesh.get_group(dimension))
    return part


def _vector(values: Sequence[Any], device: torch.device, capturable: bool) -> Tensor:
    """Return all scalars of a step as one float64 vector."""
    if not capturable and not any(isinstance(v, Tensor) for v in values):
        return torch.tensor(values, dtype=torch.float64, device=device)
    full = [
        v.to(device, torch.float64) if isinstance(v, Tensor) else torch.full((), float(v), dtype=torch.float64, device=device)
        for v in values
    ]
    return torch.stack(full)
