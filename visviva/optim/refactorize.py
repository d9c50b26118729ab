"""Low-rank restarts: refactorization of adapter pairs, momentum reset, quick recovery of the rate (arXiv 2505.22922).

Of every weight ``W = s B A`` (B ``[m, r]``, A ``[r, n]``), every ``period`` updates::

    B A = U S V^T;   B <- U S^(1/2),   A <- S^(1/2) V^T           (B A stays, B^T B = A A^T)
    the optimizer's averages and step counts of A and B start again
    lr factor: from ``floor`` linearly to 1 over ``steps`` updates

Evidence: recipe and defaults from the authors' scripts and notes on the paper (secondary; their restart class was never
released); the decomposition by two QR and an r x r SVD, O((m + n) r^2), and the care for directions that B A does not use,
reconstructed.

The reset is part of the method: the new coordinates are a rotation of the old, so old averages mean nothing. The same holds for
averages of the weights (EMA) of the factors: average B A, or start the average again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from visviva.errors import InputError
from visviva.optim.chain import kept as kept_states
from visviva.optim.optimizer import ChainOptimizer, named
from visviva.optim.transform import check


class Pair(NamedTuple):
    """The factors of one adapter: ``b`` [m, r] and ``a`` [r, n] (trailing dimensions of convolutions are flattened)."""

    name: str
    b: Tensor
    a: Tensor


def lora_pairs(model: nn.Module) -> list[Pair]:
    """Return the trainable adapter pairs of a model by their names, ``...lora_A...`` and ``...lora_B...`` (as peft names them).

    Raises:
        InputError: there is none, or one half is missing.
    """
    parameters = dict(model.named_parameters())
    pairs = []
    for name, a in parameters.items():
        if re.search(r"(^|[._])lora_(embedding_)?A([._]|$)", name) and a.requires_grad:
            partner = re.sub(r"lora_(embedding_)?A", lambda m: m[0][:-1] + "B", name)
            if partner not in parameters:
                raise InputError(
                    f"the adapter factor {name} has no partner {partner}; give the pairs yourself as Pair(name, B, A)"
                )
            pairs.append(
                Pair(name.replace("lora_A", "lora").replace("lora_embedding_A", "lora_embedding"), parameters[partner], a)
            )
    if not pairs:
        raise InputError(
            "the model has no trainable parameters named lora_A and lora_B; give the pairs yourself as Pair(name, B, A)"
        )
    return pairs


def balanced(b: Float[Tensor, "m r"], a: Float[Tensor, "r n"]) -> tuple[Float[Tensor, "m r"], Float[Tensor, "r n"]]:
    """Return the factors of the same product with ``B^T B = A A^T = S``, in float32 at least.

    Directions that the product does not use (singular values below rounding) would become zero in both factors and never learn
    again; there, B is zero and A a unit direction of the size of its other rows, as in a fresh adapter. Where the whole product
    is zero the pair stays as it is.
    """
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    b, a = b.to(wide), a.to(wide)
    qb, rb = torch.linalg.qr(b)
    qa, ra = torch.linalg.qr(a.mT)
    u, s, vh = torch.linalg.svd(rb @ ra.mT, full_matrices=False)
    used = s > s[:1] * torch.finfo(wide).eps * max(b.shape[0], a.shape[1])
    root = s.sqrt()
    size = (s * used).sum().div(used.sum().clamp_min(1)).sqrt()
    new_b = qb @ (u * torch.where(used, root, 0.0))
    new_a = (torch.where(used, root, size)[:, None] * vh) @ qa.mT
    missing = a.shape[0] - s.shape[0]
    new_b, new_a = nn.functional.pad(new_b, (0, missing)), nn.functional.pad(new_a, (0, 0, 0, missing))
    alive = s[:1] > 0
    return torch.where(alive, new_b, b), torch.where(alive, new_a, a)


@torch.no_grad()
def refactorize(pair: Pair) -> None:
    """Balance a pair in place; sharded factors are gathered and put back.

    Example::

        for pair in lora_pairs(model):
            refactorize(pair)
    """
    b, a = (_whole(x) for x in pair[1:])
    if b.flatten(1).shape[1] != a.shape[0]:
        raise InputError(f"the pair {pair.name} has B {tuple(b.shape)} and A {tuple(a.shape)}; B's columns must be A's rows")
    for old, new in zip(pair[1:], balanced(b.flatten(1), a.flatten(1)), strict=True):
        value = new.reshape(old.shape).to(old.dtype)
        old.copy_(distribute_tensor(value, old.device_mesh, old.placements) if isinstance(old, DTensor) else value)


def _whole(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x.detach()


@torch.no_grad()
def reset_momentum(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], restart_count: bool = True) -> None:
    """Clear an optimizer's averages of some parameters; with ``restart_count`` their step count starts again too.

    Of optimizers of the core the states that are averages go back to their first value (with ``restart_count`` also the numbers
    per tensor, such as SGD-SaI's scale, which is then taken anew). Of others the whole state goes (with
    ``restart_count``), or all floating tensors but ``step`` become zero. Wrappers (``.backend``, ``.optimizer``) are looked
    through.
    """
    while not isinstance(optimizer, ChainOptimizer) and (inner := _wrapped(optimizer)) is not None:
        optimizer = inner
    chosen = {id(p) for p in parameters}
    for group in optimizer.param_groups:
        for name, parameter in named(group):
            if id(parameter) in chosen and optimizer.state.get(parameter):
                if isinstance(optimizer, ChainOptimizer):
                    _reset_own(optimizer, group, name, parameter, restart_count)
                else:
                    _reset_other(optimizer, parameter, restart_count)


def _wrapped(optimizer: Any) -> Any:
    return optimizer.__dict__.get("backend", optimizer.__dict__.get("optimizer"))


def _reset_own(optimizer: ChainOptimizer, group: Mapping[str, Any], name: str, parameter: Tensor, restart_count: bool) -> None:
    state = optimizer.state[parameter]
    for key, kept in kept_states(optimizer.chain(group, optimizer.route(group, name, parameter))).items():
        if key in state and (kept.moment or (restart_count and kept.kind == "tensor")):
            if kept.init == "identity":
                state[key].copy_(torch.eye(state[key].shape[-1]))
            else:
                state[key].fill_(kept.init)
    if restart_count:
        state["step"] = torch.zeros_like(state["step"])
        optimizer.__setstate__({})  # parameters of different counts are laid out apart


def _reset_other(optimizer: torch.optim.Optimizer, parameter: Tensor, restart_count: bool) -> None:
    if restart_count:
        optimizer.state[parameter].clear()
        return
    for key, value in optimizer.state[parameter].items():
        if isinstance(value, Tensor) and value.is_floating_point() and key != "step":
            value.zero_()


def quick_recovery(period: int = 200, steps: int = 10, floor: float = 1e-3) -> Callable[[int], float]:
    """Return the factor of the rate after restarts, a function of the number of updates done (for ``LambdaLR``).

    1 before the first restart; then ``floor + (1 - floor) min(j / steps, 1)``, j updates after a restart.

    Example::

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, quick_recovery(200, 10))
    """
    check("quick_recovery: floor", floor, 0.0, 1.0 + 1e-12)
    if period < 1 or steps < 1:
        raise InputError(f"quick_recovery: period is {period}, steps {steps}; allowed are whole numbers from 1 on")

    def factor(done: int) -> float:
        return 1.0 if done < period else floor + (1.0 - floor) * min(done % period / steps, 1.0)

    return factor


class LowRankRestart:
    """Refactorizes adapter pairs and resets their momentum every ``period`` updates.

    Call `step` after every ``optimizer.step()``; combine with `quick_recovery` of the same period.

    Args:
        optimizer: of the core, of torch, or any that keeps its state per parameter.
        pairs: `lora_pairs` of the model.
        period: updates between restarts.
        restart_count: bias corrections start again too.

    Example::

        restart = LowRankRestart(optimizer, lora_pairs(model), period=200)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, quick_recovery(200, 10))
        for batch in data:
            loss(batch).backward(); optimizer.step(); restart.step(); scheduler.step(); optimizer.zero_grad()
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, pairs: Sequence[Pair], period: int = 200, restart_count: bool = True
    ) -> None:
        if period < 1 or not pairs:
            raise InputError(f"LowRankRestart: period is {period}, with {len(pairs)} pairs; allowed are 1 or more of both")
        self.optimizer, self.pairs, self.period, self.restart_count, self.count = (
            optimizer,
            list(pairs),
            period,
            restart_count,
            0,
        )

    def step(self) -> bool:
        """Count an update; return whether it was followed by a restart."""
        self.count += 1
        if self.count % self.period:
            return False
        for pair in self.pairs:
            refactorize(pair)
        reset_momentum(self.optimizer, [x for pair in self.pairs for x in pair[1:]], self.restart_count)
        return True

    def state_dict(self) -> dict[str, int]:
        """Return the number of updates."""
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a saved number of updates."""
        self.count = state["count"]
