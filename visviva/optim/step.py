"""One step of an optimizer: the stages of every chain over its segments, in turn where sums over all parameters are needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from visviva.optim import chain as chains
from visviva.optim.arena import Segment
from visviva.optim.groups import check_rate
from visviva.optim.transform import Transform


class Turn:
    """One step of the segments that share group, chain, dtype and step count."""

    def __init__(self, optimizer: Any, key: Any, segments: list[Segment]) -> None:
        number, kind, *_ = key
        group = optimizer.param_groups[number]
        check_rate(optimizer, group["lr"])
        self.segments, first = segments, segments[0]
        chain = optimizer.chain(group, kind)
        self.stages = chains.stages(chain)
        changes = any(t.place == "gradient" for t in chain)
        kept = first.kept == chains.kept(chain)
        self.fits = kept and (len(self.stages) == 1 or (first.u is not None and (not changes or first.changed_g is not None)))
        self.t = None if optimizer.capturable else float(first.t + 1)
        t: Any = first.step[0].double() + 1 if optimizer.capturable else self.t
        transforms = [transform for stage in self.stages for transform in stage.transforms]
        self.values = chains.numbers(transforms, t, group["lr"])
        self.scalars = _vector(
            [group["lr"], *(v for own in self.values for _, v in own), t], first.device, optimizer.capturable
        )
        self.gradients = [s.gather() for s in segments]
        self.compiled = optimizer._compiles(segments)
        self.adopt = optimizer.adopt

    def run(self, k: int, measured: Tensor | None) -> None:
        """Run stage ``k`` on all segments."""
        stage = self.stages[k]
        function = functools.partial(self._function, k, chains.program(stage, self.values))
        for i, s in enumerate(self.segments):
            if stage.batched:
                chains.run_batched(function, s, self.gradients[i], measured, self.scalars)
            else:
                function()(
                    s.p, self.gradients[i], s.u, s.changed_g, [*s.state.values(), *s.scales.values()], measured, self.scalars
                )
                chains.reset_small(s, function.args[1], self.scalars)
            if s.changed_g is not None and any(t.place == "gradient" for t in stage.transforms):
                self.gradients[i] = s.changed_g

    def _function(self, k: int, program: chains.Program, ndim: int = 0) -> Callable[..., None]:
        stage, kept, first = self.stages[k], self.segments[0].kept, self.segments[0]
        names = (*first.state, *(first.buckets[0].state if ndim else ()))
        moments = tuple(name for name in names if kept[name].moment)
        compiled = self.compiled and all(transform.compiles(self.t) for transform in stage.transforms)
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
