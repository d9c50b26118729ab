"""The optimizer that runs a chain of transforms; every named optimizer is a few lines on top of it.

::

    class AdamW(ChainOptimizer):
        def transforms(self, group): return [Ema(...), SecondMoment(...), RmsDivide(...), Apply(...)]

It is an ordinary ``torch.optim.Optimizer``: schedulers may write any number into ``param_groups`` (the chain is rebuilt from
the group's values at every step), ``state_dict`` has the usual per-parameter layout, closures, gradient scaling and
accumulation work as ever. What differs is inside: see `visviva.optim.arena` and `visviva.optim.chain`.

Gradients that are NaN or infinite are not looked for: as with ``torch.optim`` they spoil the weights they belong to (and, for
optimizers that reduce over tensors, those of the tensor, or for ``ClipGlobalNorm`` and ``AMMSGD`` all). Clip or skip before.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import optimizer as torch_optimizer

from visviva.errors import InputError
from visviva.optim import chain as chains
from visviva.optim.arena import SCALE, Segment, local, powers
from visviva.optim.gradient import ClipGlobalNorm
from visviva.optim.groups import by_name, check_group, check_rate, named, refuse_sparse, refuse_twice, refuse_unknown
from visviva.optim.sparse import SparseMomentum, SparseSegment, refuse_other_density, rule_of
from visviva.optim.step import Plan, Turn, measured_sums
from visviva.optim.transform import Transform

DIRECT = {"cpu": 1 << 16, "cuda": 1 << 20}
"""From how many weights on a tensor is updated where it lies: copies of its gradient would cost more than a launch."""

WORTH_COMPILING = 1 << 18
"""From how many weights on ``compile=None`` compiles; below, a step is short anyway and the compiler takes seconds."""


class ChainOptimizer(torch.optim.Optimizer):
    """A chain of transforms as a ``torch.optim.Optimizer``.

    Args:
        params: parameters, named parameters or groups (dictionaries), as every torch optimizer takes them.
        defaults: hyper-parameters of groups that do not set them; must hold ``lr``.
        extra: further transforms, put where they belong (`visviva.optim.transform.Transform.place`).
        compile: run elementwise stages compiled. None: when there are many weights and a compiler.
        adopt: keep gradients in the arena too; fastest. Before wrapping the model (DDP), with gradients zeroed, not dropped:
            this optimizer's ``zero_grad`` does so, dropped ones are gathered.
        capturable: keep step counts on the device, so that a step can be captured in a CUDA graph.
        state_dtype: of the states per weight; None takes the weights' dtype, float32 at least. ``torch.int8`` keeps averages in
            eight bits (`visviva.optim.eight_bit`); for chains of elementwise transforms, unsharded.

    Raises:
        InputError: an option or a group's key is unknown, a hyper-parameter is of another kind or out of range, a parameter is
            complex or given twice, a gradient is sparse.
    """

    COPIED: ClassVar[tuple[str, ...]] = ("extra", "compile", "adopt", "capturable", "state_dtype")
    """Attributes that copies and pickles take along; a subclass adds its own."""

    def __init__(
        self,
        params: Any,
        defaults: Mapping[str, Any],
        *,
        extra: Sequence[Transform] = (),
        compile: bool | None = None,
        adopt: bool = False,
        capturable: bool = False,
        state_dtype: torch.dtype | None = None,
        **unknown: Any,
    ) -> None:
        refuse_unknown(self, unknown, defaults)
        if state_dtype not in (None, torch.float32, torch.float64, torch.bfloat16, torch.int8):
            raise InputError(
                f"{type(self).__name__}: state_dtype is {state_dtype}; allowed are float32, float64, bfloat16, int8"
            )
        self.extra, self.compile, self.adopt = tuple(extra), compile, adopt
        self.capturable, self.state_dtype = capturable, state_dtype
        self._segments: dict[Any, list[Segment]] = {}
        self._plans: dict[Any, Plan] = {}
        self._idle: list[Tensor] = []
        self._planned = False
        params = params if isinstance(params, Tensor) else list(params)
        if not isinstance(params, Tensor) and not params:
            raise InputError(f"{type(self).__name__} is given no parameters; check what selects them")
        super().__init__(params, dict(defaults))

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return the chain for a group's hyper-parameters (and one of the `route` kinds)."""
        raise NotImplementedError

    def route(self, group: Mapping[str, Any], name: str, parameter: Tensor) -> str:
        """Return which of the optimizer's chains a parameter takes; most have one."""
        return ""

    def chain(self, group: Mapping[str, Any], kind: str = "") -> tuple[Transform, ...]:
        """Return the whole chain of a group, extra transforms included."""
        return chains.ordered(self.transforms(group, kind), self.extra)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; its hyper-parameters are checked."""
        given = param_group["params"]
        param_group = {**param_group, "params": [given] if isinstance(given, Tensor) else list(given)}
        if not param_group["params"]:
            raise InputError(f"{type(self).__name__}: group {len(self.param_groups)} holds no parameters; leave it out")
        refuse_twice(param_group["params"], self.param_groups)
        check_group(self, param_group)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        check_rate(self, group["lr"] if not isinstance(group["lr"], Tensor) else float(group["lr"]))
        for name, parameter in named(group):
            if parameter.is_complex():
                raise InputError(f"parameter {name} is complex; train its real view (torch.view_as_real)")
            self._check_chain(self.chain(group, self.route(group, name, parameter)))
        self._planned = False

    def _check_chain(self, chain: tuple[Transform, ...]) -> None:
        chains.kept(chain)
        if not any(t.place == "weights" for t in chain):
            raise InputError(f"{type(self).__name__}: no transform of the chain moves the weights; end it with Apply()")
        batched = [type(t).__name__ for t in chain if t.batched]
        if rule_of(chain) and (batched or any(isinstance(t, ClipGlobalNorm) for t in chain)):
            raise InputError(
                f"{type(self).__name__}: {batched[0]} needs whole tensors; leave out sparse momentum"
                if batched
                else f"{type(self).__name__}: ClipGlobalNorm would see the chosen weights only; leave it out, and call "
                "torch.nn.utils.clip_grad_norm_ before step()"
            )
        if batched and self.state_dtype == torch.int8:
            raise InputError(
                f"{type(self).__name__}: {batched[0]} works on whole tensors, eight-bit states on blocks; use state_dtype=None"
            )
        branching = [type(t).__name__ for t in chain if not t.capturable]
        if self.capturable and branching:
            raise InputError(
                f"{type(self).__name__}: {branching[0]} cannot be captured in a CUDA graph; leave out capturable=True"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs; it lays its parameters out anew. States leave the arena, or each would bring all of it."""
        state = {p: {n: v.clone() if isinstance(v, Tensor) else v for n, v in s.items()} for p, s in self.state.items()}
        own = {name: value for name, value in vars(self).items() if name in self.COPIED}
        return {**super().__getstate__(), "state": defaultdict(dict, state), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._segments, self._plans, self._idle, self._planned = {}, {}, [], False

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state; by parameter names where both sides have them, by position otherwise. Dtypes are kept as saved.

        Raises:
            InputError: the state is of another optimizer or another model.
        """
        saved = by_name(dict(state_dict), self.param_groups)
        places = [i for g in saved["param_groups"] for i in g["params"]]
        parameters = [p for g in self.param_groups for p in g["params"]]
        if len(places) != len(parameters):
            raise InputError(f"the saved state is of {len(places)} parameters, this optimizer has {len(parameters)}")
        counts = [len(g["params"]) for g in saved["param_groups"]], [len(g["params"]) for g in self.param_groups]
        if counts[0] != counts[1]:
            raise InputError(f"the saved state has groups of {counts[0]} parameters, this optimizer of {counts[1]}")
        self._refuse_foreign(saved)
        super().load_state_dict(saved)
        for i, parameter in zip(places, parameters, strict=True):
            for name, value in saved["state"].get(i, {}).items():
                self.state[parameter][name] = value.clone() if isinstance(value, Tensor) else value
        self._planned = False

    def _refuse_foreign(self, saved: Mapping[str, Any]) -> None:
        for group, new in zip(self.param_groups, saved["param_groups"], strict=True):
            missing = [name for name in self.defaults if name not in new and name != "differentiable"]  # torch's own addition
            if missing:
                raise InputError(
                    f"the saved state has no {missing[0]!r}, which {type(self).__name__} needs; it is of another optimizer"
                )
            merged = {**new, "params": group["params"]}
            for (name, parameter), i in zip(named(group), new["params"], strict=True):
                kept = chains.kept(self.chain(merged, self.route(merged, name, parameter)))
                known = {"step", *kept, *(n + SCALE for n in powers(kept, self.state_dtype))}
                entries = set(saved["state"].get(i, known))
                if entries != known:
                    raise InputError(
                        f"the saved state of parameter {name} holds {sorted(entries)}, {type(self).__name__} keeps "
                        f"{sorted(known)}; load the state of the same optimizer with the same transforms"
                    )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients; adopted ones are zeroed in place whatever ``set_to_none`` says, frozen weights' are dropped."""
        if not (self.adopt and self._planned):
            super().zero_grad(set_to_none)
            return
        for segment in (s for own in self._segments.values() for s in own):
            if segment.moved:
                segment.g.zero_()
                segment.adopt_gradients()
            else:
                for parameter in segment.parameters:
                    parameter.grad = None
        frozen = (p for group in self.param_groups for p in group["params"] if not p.requires_grad)
        for parameter in (*self._idle, *frozen):
            parameter.grad = None

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """Return a step that goes through torch's hooks and profiler only where there are any (30 microseconds a step)."""
        hooked = torch.optim.Optimizer.profile_hook_step(func)

        @functools.wraps(func)
        def step(self: ChainOptimizer, *args: Any, **kwargs: Any) -> Any:
            own = (self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks)
            everyone = (torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks)
            watched = any(own) or any(everyone) or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
            return (hooked if watched else func)(self, *args, **kwargs)

        return step

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Do one step over the parameters that have gradients; return the closure's value."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        turns = self._turns()
        for k in range(max((len(turn.stages) for turn in turns), default=0)):
            here = [turn for turn in turns if k < len(turn.stages)]
            sums = measured_sums(here, k)
            for turn in here:
                turn.run(k, sums.get(type(turn.stages[k].transforms[0])))
        for turn in turns:
            turn.close()
        return loss

    def _turns(self) -> list[Turn]:
        self._plan()
        turns = [Turn(self, key, segments) for key, segments in self._segments.items()]
        if all(turn.fits for turn in turns):
            return turns
        self._planned = False  # a group's new numbers ask for other states or stages
        self._plan()
        return [Turn(self, key, segments) for key, segments in self._segments.items()]

    def _plan(self) -> None:
        """Lay the parameters that have gradients out in segments, unless they already are."""
        segments = (s for own in self._segments.values() for s in own)
        if self._planned and all(p.grad is None for p in self._idle) and all(s.ready() for s in segments):
            return
        found: dict[Any, list[Tensor]] = {}
        self._idle = []
        for number, group in enumerate(self.param_groups):
            for name, parameter in named(group):
                if parameter.grad is None:
                    self._idle.append(parameter)
                    continue
                refuse_sparse(name, parameter.grad)
                done = int(self.state[parameter]["step"]) if "step" in self.state[parameter] else 0
                sharded = isinstance(parameter, DTensor)
                kind = self.route(group, name, parameter)
                key = (number, kind, parameter.dtype, parameter.device, sharded, done)
                found.setdefault((key, id(parameter) if self._lies_well(parameter) else None), []).append(parameter)
        self._segments = {}
        for (key, single), parameters in found.items():
            self._segments.setdefault(key, []).append(self._segment(key, parameters, single is not None))
        self._planned = all(s.ready() for own in self._segments.values() for s in own)

    def _lies_well(self, parameter: Tensor) -> bool:
        own = local(parameter.detach())
        if self.adopt and not isinstance(parameter, DTensor):
            return False
        return own.is_contiguous() and own.numel() >= DIRECT.get(own.device.type, 1 << 20)

    def _segment(self, key: Any, parameters: list[Tensor], direct: bool) -> Segment:
        number, kind, *_, done = key
        chain = self.chain(self.param_groups[number], kind)
        if self.state_dtype == torch.int8 and isinstance(parameters[0], DTensor):
            raise InputError(f"{type(self).__name__}: states in eight bits are not sharded; use state_dtype=None under FSDP2")
        sparse = rule_of(chain)
        refuse_other_density(sparse, parameters, self.state)
        rule = functools.partial(self._rule, number, kind)
        make = Segment if sparse is None else functools.partial(SparseSegment, rule)
        return make(
            parameters,
            chains.kept(chain),
            self.state,
            done,
            direct=direct and sparse is None,
            state_dtype=self.state_dtype,
            scratch=len(chains.stages(chain)) > 1,
            changes_gradient=any(t.place == "gradient" for t in chain),
            capturable=self.capturable,
        )

    def _rule(self, number: int, kind: str) -> SparseMomentum | None:
        return rule_of(self.chain(self.param_groups[number], kind))

    def _compiles(self, segments: Sequence[Segment]) -> bool:
        if self.compile is None:
            weights = sum(s.size for own in self._segments.values() for s in own)
            return weights >= WORTH_COMPILING and chains.compiler_found(segments[0].device.type)
        return self.compile and chains.compiler_found(segments[0].device.type)


class Chain(ChainOptimizer):
    """An optimizer of given transforms; `chain` makes it."""

    COPIED: ClassVar[tuple[str, ...]] = (*ChainOptimizer.COPIED, "links")

    def __init__(self, params: Any, links: Sequence[Transform], lr: float, **options: Any) -> None:
        self.links = tuple(links)
        super().__init__(params, {"lr": lr}, **options)

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return the given transforms."""
        return list(self.links)


def chain(params: Any, transforms: Sequence[Transform], lr: float, **options: Any) -> ChainOptimizer:
    """Return an optimizer made of the given transforms, in this order; the last one moves the weights.

    Args:
        params: parameters, named parameters or groups.
        transforms: links of the chain, such as ``[Ema(0.9), Nesterov(0.9), Apply()]``.
        lr: learning rate.
        options: of `ChainOptimizer`.

    Raises:
        InputError: no transform moves the weights, or one reads a state that none keeps.

    Example::

        from visviva.optim import Apply, Ema, Nesterov, chain

        optimizer = chain(model.parameters(), [Ema(0.9), Nesterov(0.9), Apply(weight_decay=0.1)], lr=1e-4)
    """
    return Chain(params, transforms, lr, **options)
