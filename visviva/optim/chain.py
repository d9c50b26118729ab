"""A chain of transforms as a program: stages that run eagerly or compiled, on segments of parameters.

Consecutive elementwise transforms form one stage, which is compiled into one kernel over flat vectors. Batched transforms run
per bucket of equal shapes: reductions and their elementwise neighbours are one compiled stage, matrix products and sorts are
stages of their own, not compiled. Between stages the update lives in the segment's scratch buffer. Every changing number is an
entry of one vector of float64 scalars per step, so that a stage is compiled once per structure of the chain.
"""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.optim.arena import Bucket, Segment
from visviva.optim.eight_bit import decode, dither, encode
from visviva.optim.gradient import MomentumReset
from visviva.optim.rounding import to_bfloat16
from visviva.optim.transform import Kept, Step, Transform

PORTION = {"cpu": 1 << 20}
"""Weights that a compiled batched stage takes at a time: what it keeps between two passes then stays near the processor."""


@dataclass(frozen=True)
class Stage:
    """Consecutive transforms that run together: ``first`` is their index in the chain."""

    transforms: tuple[Transform, ...]
    first: int

    @property
    def batched(self) -> bool:
        """Whether the stage runs on buckets of matrices."""
        return any(t.batched for t in self.transforms)

    @property
    def alone(self) -> bool:
        """Whether no other transform may join."""
        return any(t.batched and not t.fuses for t in self.transforms)

    @property
    def decays(self) -> bool:
        """Whether the weights have been changed, but are not where they go: rounding them here would round them twice."""
        return any(t.decays for t in self.transforms)

    @property
    def measures(self) -> bool:
        """Whether sums over all parameters are needed first."""
        return self.transforms[0].measures


def ordered(transforms: Sequence[Transform], extra: Sequence[Transform]) -> tuple[Transform, ...]:
    """Put extra transforms where they belong: gradient ones first, update ones before the weights move, others last."""
    chain = list(transforms)
    applies = [i for i, t in enumerate(chain) if t.place == "weights"]
    at = applies[0] if applies else len(chain)
    places = {place: [t for t in extra if t.place == place] for place in ("gradient", "update", "weights")}
    return (*places["gradient"], *chain[:at], *places["update"], *chain[at:], *places["weights"])


def stages(transforms: Sequence[Transform]) -> list[Stage]:
    """Cut a chain into stages."""
    cut: list[Stage] = []
    for i, transform in enumerate(transforms):
        own = Stage((transform,), i)
        if cut and not own.measures and (cut[-1].decays or not (cut[-1].alone or own.alone)):
            cut[-1] = Stage((*cut[-1].transforms, transform), cut[-1].first)
        else:
            cut.append(own)
    return cut


def kept(transforms: Sequence[Transform]) -> dict[str, Kept]:
    """Return the states of a chain by name.

    Raises:
        InputError: two transforms keep a state of one name, or one reads a state that none keeps.
    """
    found: dict[str, Kept] = {}
    for transform in transforms:
        for name, what in transform.states().items():
            if name in found:
                raise InputError(f"two transforms of the chain keep a state {name!r}; leave one out, or rename one")
            found[name] = what
    for transform in transforms:
        missing = [name for name in transform.reads() if name not in found]
        if missing:
            raise InputError(
                f"{type(transform).__name__} reads the state {missing[0]!r}, which no transform of this chain keeps "
                f"(kept: {', '.join(found) or 'none'}); use it with an optimizer that keeps it"
            )
    return found


def numbers(transforms: Sequence[Transform], t: Any, lr: Any) -> list[list[tuple[str, Any]]]:
    """Return the scalars of every transform, names sorted, for step ``t`` (from 1)."""
    restarted = t
    for transform in transforms:
        restarted = transform.clock(restarted)
    return [sorted(transform.scalars(restarted if transform.restarts else t, lr).items()) for transform in transforms]


Program = tuple[tuple[Transform, tuple[tuple[str, int], ...]], ...]


def program(stage: Stage, values: Sequence[Sequence[tuple[str, Any]]]) -> Program:
    """Bind each transform of a stage to the places of its scalars in the vector of all scalars (place 0 is the rate)."""
    place = 1 + sum(len(v) for v in values[: stage.first])
    bound = []
    for transform, own in zip(stage.transforms, values[stage.first :], strict=False):
        bound.append((transform, tuple((name, place + i) for i, (name, _) in enumerate(own))))
        place += len(own)
    return tuple(bound)


def run(program: Program, x: Step, scalars: Tensor) -> None:
    """Run transforms in turn."""
    values = scalars.unbind()  # entries of the list are fixed places to the compiler, indices of the tensor are not
    for transform, places in program:
        transform(x, **{name: values[i] for name, i in places})


def stage_function(
    program: Program,
    names: Sequence[str],
    moments: tuple[str, ...],
    first: bool,
    last: bool,
    ndim: int = 0,
    t: float | None = None,
    powers: Mapping[str, int] = MappingProxyType({}),
) -> Callable[..., None]:
    """Return the function of one stage: flat buffers, or views of a bucket (``ndim`` > 0), in; changed in place.

    The update starts as the gradient in the chain's first stage; it is carried by ``u`` to and from other stages. ``powers``:
    the states that are kept in eight bits, whose scales follow the states.
    """
    packed = tuple(powers)

    def stage(
        p: Tensor, g: Tensor, u: Tensor | None, g_out: Tensor | None, states: list[Tensor], m: Tensor | None, s: Tensor
    ) -> None:
        buffers = dict(zip(names, states, strict=False))
        scales = dict(zip(packed, states[len(names) :], strict=True))
        state = {n: decode(v, scales[n], powers[n]) if n in scales else _wide(v) for n, v in buffers.items()}
        gradient = _wide(g)
        weights, update, before = _wide(p), gradient if first or u is None else u, dict(state)
        x = Step(weights, gradient, update, state, s[0], ndim=ndim, measured=m, moments=moments, t=t)
        run(program, x, s)
        if x.p is not weights:
            p.copy_(x.p)
        for name, buffer in buffers.items():
            if x.state[name] is before[name]:
                continue
            if name in scales:
                codes, scale = encode(x.state[name], powers[name], dither(x.state[name], s.unbind()[-1]))
                buffer.copy_(codes)
                scales[name].copy_(scale)
            elif buffer.dtype == torch.bfloat16 and not ndim:
                buffer.copy_(to_bfloat16(x.state[name], noise=dither(x.state[name], s.unbind()[-1])))
            else:
                buffer.copy_(x.state[name])
        if g_out is not None and (first or x.g is not gradient):
            g_out.copy_(x.g)
        if u is not None and not last and (first or x.u is not update):
            u.copy_(x.u)

    return stage


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def flat_step(segment: Segment, g: Tensor, first: bool, scalars: Tensor) -> Step:
    """Return what an elementwise stage of a segment starts from, to measure it."""
    gradient = _wide(g)
    update = gradient if first or segment.u is None else segment.u
    packed = segment.powers
    state = {n: decode(v, segment.scales[n], packed[n]) if n in packed else _wide(v) for n, v in segment.state.items()}
    return Step(_wide(segment.p), gradient, update, state, scalars[0])


def batched_step(bucket: Bucket, segment: Segment, g: Tensor, first: bool, scalars: Tensor, t: float | None) -> Step:
    """Return what a batched stage sees of one bucket, to measure it."""
    state = {name: _wide(bucket.view(buffer)) for name, buffer in segment.state.items()} | bucket.state
    p, gradient = _wide(bucket.view(segment.p)), _wide(bucket.view(g))
    update = gradient if first or segment.u is None else bucket.view(segment.u)
    return Step(p, gradient, update, state, scalars[0], ndim=bucket.ndim, t=t)


def run_batched(
    function: Callable[[int], Callable[..., None]],
    segment: Segment,
    g: Tensor,
    measured: Tensor | None,
    scalars: Tensor,
    in_portions: bool,
) -> None:
    """Run a batched stage on each bucket of a segment, at once or in portions of `PORTION` weights; ``function`` gives it for a
    number of dimensions."""
    for bucket in segment.filled():
        flat = [segment.p, segment.u, segment.changed_g, *segment.state.values()]
        views = [None if buffer is None else bucket.view(buffer) for buffer in flat]
        columns, count = [bucket.view(g), *views, *bucket.state.values()], len(bucket.members)
        most = PORTION.get(g.device.type) if in_portions else None
        many = max(1, most // bucket.members[0].numel()) if most else count  # whole tensors: shards may be empty
        for i in range(0, count, many):
            gradient, p, u, changed, *states = [None if c is None else c[i : i + many] for c in columns]
            function(bucket.ndim)(p, gradient, u, changed, states, measured, scalars)
        if bucket.sharded:
            for buffer, view in zip(flat, views, strict=True):
                if buffer is not None and view is not None:
                    bucket.store(buffer, view)


def reset_small(segment: Segment, program: Program, scalars: Tensor) -> None:
    """Clear the averages that are not per weight where a transform of the stage resets momentum."""
    for transform, places in program:
        if isinstance(transform, MomentumReset):
            keep = scalars[places[0][1]] > 0
            for bucket in segment.buckets:
                for name, value in bucket.state.items():
                    if segment.kept[name].moment:
                        value.copy_(torch.where(keep, value, 0.0))


_COMPILED: dict[Any, Callable[..., None]] = {}

OPTIONS: dict[str, Any] = {"cpp.vec_isa_ok": True}
"""Vector instructions are taken to work where the processor names them, and one kernel is tried (`compiler_found`). Left to
itself, torch first builds and loads a library with all its headers for each kind, ten seconds and more."""


def compiled(
    program: Program,
    names: tuple[str, ...],
    moments: tuple[str, ...],
    first: bool,
    last: bool,
    ndim: int = 0,
    t: float | None = None,
    powers: Mapping[str, int] = MappingProxyType({}),
) -> Callable[..., None]:
    """Return the compiled stage of a structure, one for the whole process; sizes and step counts do not compile it anew."""
    ndim = min(ndim, 2)
    key = (
        tuple((transform.structure(), places) for transform, places in program),
        names,
        moments,
        first,
        last,
        ndim,
        *powers.items(),
    )
    if key not in _COMPILED:
        stage = stage_function(program, names, moments, first, last, ndim, t, powers)
        code = stage.__code__.replace(co_name=f"stage_{len(_COMPILED)}")  # the compiler's cache limit counts per code object
        own = types.FunctionType(code, stage.__globals__, code.co_name, stage.__defaults__, stage.__closure__)
        _COMPILED[key] = torch.compile(own, fullgraph=True, dynamic=True, options=OPTIONS)
    return _COMPILED[key]


@functools.cache
def compiler_found(device: str) -> bool:
    """Return whether stages can be compiled for a kind of device; where not, say so once."""
    try:
        probe = torch.compile(lambda x: x * 2 + 1, fullgraph=True, options=OPTIONS)
        probe(torch.zeros(64, device=device))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        warnings.warn(f"optimizers run uncompiled on this machine, several times slower: {reason}", stacklevel=2)
        return False
    return True
