"""MKOR: a Kronecker preconditioner kept as inverses by rank-one updates, around any optimizer (arXiv 2306.01685, NeurIPS 2023).

The maths, and what is right and wrong about the printed form, is in `visviva.optim.kronecker`; which vectors are taken in
`visviva.optim.layer_means`.

Factors are float32 (float64 for float64 weights); the released code's float16 is not offered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from visviva.errors import InputError
from visviva.optim.kronecker import Update, eye, norm_ratio, updated
from visviva.optim.layer_means import Layer, layers_of, over_processes
from visviva.optim.switch_off import SwitchOff
from visviva.optim.transform import check


class MKOR(torch.optim.Optimizer):
    """Any optimizer, given preconditioned gradients of a model's linear and convolution layers.

    ``param_groups`` and ``state`` are the backend's own, so that schedulers, gradient scalers and hooks work on either.

    Args:
        model: whose layers (`nn.Linear`, `nn.Conv1d/2d/3d` without groups) are preconditioned; other weights go to the backend
            as they are. Set up before the first forward pass; `remove` takes the hooks away.
        backend: an optimizer of the model's parameters.
        gamma: decay of the factors.
        threshold, zeta: stabiliser before each update: where an entry of ``L^-1`` passes the threshold,
            ``L^-1 <- zeta L^-1 + (1 - zeta) I``. None: 1e6 for ``exact``, whose inverse grows with ``1 / gamma`` by itself (the
            norm is taken out again) and is a plain identity most of the time with a small threshold; else 2, as released.
        refresh: steps between updates of the factors; 0: never (they stay I, and the trajectory the backend's).
        update: rule of the factors (`visviva.optim.kronecker.updated`).
        clamp: bound on inputs, and on output gradients, which are multiplied by the number of samples first.
        warmup: steps at first that update factors and leave gradients alone.
        max_size: layers with more inputs or outputs are left to the backend (a factor holds size^2 numbers).
        loss_scale: of mixed precision (a number or ``scaler.get_scale``), divided out of the output gradients.
        switch_off: a criterion for going on with the plain backend (`MKORH`).

    Means are taken over all backward passes since the last step or ``zero_grad``, and all-reduced where torch.distributed runs.
    Means that are not finite leave the factors alone. Sharded weights (FSDP2) are refused.

    Example::

        optimizer = MKOR(model, SGDM(model.parameters(), lr=0.05))
    """

    def __init__(
        self,
        model: nn.Module,
        backend: torch.optim.Optimizer,
        *,
        gamma: float = 0.95,
        threshold: float | None = None,
        zeta: float = 0.1,
        refresh: int = 10,
        update: Update = "exact",
        clamp: float = 100.0,
        warmup: int = 0,
        max_size: int = 8192,
        loss_scale: float | Callable[[], float] = 1.0,
        switch_off: SwitchOff | None = None,
    ) -> None:
        check("MKOR: gamma", gamma, 1e-6, 1.0)
        check("MKOR: zeta", zeta, 0.0, 1.0 + 1e-12)
        threshold = (1e6 if update == "exact" else 2.0) if threshold is None else threshold
        check("MKOR: threshold", threshold, 1.0, float("inf"))
        check("MKOR: clamp", clamp, 1e-12, float("inf"))
        if update not in ("exact", "printed", "released") or refresh < 0 or warmup < 0:
            raise InputError(
                f"MKOR: update {update!r}, refresh {refresh}, warmup {warmup}; allowed: exact, printed, released; >= 0"
            )
        self.backend, self.gamma, self.threshold, self.zeta, self.refresh = backend, gamma, threshold, zeta, refresh
        self.update, self.warmup, self.loss_scale, self.switch_off = update, warmup, loss_scale, switch_off
        self.count, self.on = 0, True
        self._losses: list[Tensor] = []
        self.layers = layers_of(model, backend, clamp, max_size)
        self.factors = {layer.name: layer.identities() for layer in self.layers}
        super().__setstate__({})  # what Optimizer needs beyond the groups and states, which are the backend's
        self._take_next()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs. Hooks belong to the model: copy or pickle both in one go, as ``(model, optimizer)``."""
        own = ("backend", "gamma", "threshold", "zeta", "refresh", "update", "warmup", "loss_scale", "switch_off")
        return {name: getattr(self, name) for name in (*own, "count", "on", "_losses", "layers", "factors")}

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The backend's groups."""
        return self.backend.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The backend's states."""
        return self.backend.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """A copy of the backend's hyper-parameters."""
        return dict(self.backend.defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the backend (its layers are not preconditioned)."""
        self.backend.add_param_group(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients, and the means that belong to them."""
        self.backend.zero_grad(set_to_none)
        self._forget()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update the factors where due, precondition, step the backend; return the closure's value."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            self.observe(loss)
        if self.on and self._due():
            self._refresh()
        if self.on and self.count >= self.warmup:
            for layer in self.layers:
                self._precondition(layer)
        self.count += 1
        self._forget()
        self._take_next()
        self.backend.step()
        return loss

    def observe(self, loss: Tensor | float) -> None:
        """Tell the criterion of `switch_off` the loss of this step (``step(closure)`` does it by itself)."""
        if self.switch_off is not None:
            self._losses.append(torch.as_tensor(loss).detach())

    def remove(self) -> None:
        """Take the hooks away; from now on this is the plain backend."""
        self.on = False
        for layer in self.layers:
            layer.handle.remove()
            layer.sums = None

    def _due(self) -> bool:
        return self.refresh > 0 and self.count % self.refresh == 0

    def _take_next(self) -> None:
        for layer in self.layers:
            layer.taking = self.on and self._due()
            layer.scale = self.loss_scale

    def _forget(self) -> None:
        for layer in self.layers:
            layer.sums = None

    def _refresh(self) -> None:
        if self.switch_off is not None and self.switch_off(self._mean_loss()):
            self.remove()
            return
        for layer, means in zip(self.layers, over_processes([layer.taken() for layer in self.layers]), strict=True):
            count, pair = means.count.clamp_min(1), self.factors[layer.name]
            vectors = (means.g / count, means.a / count)
            usable = (means.count > 0) & torch.isfinite(vectors[0]).all() & torch.isfinite(vectors[1]).all()
            for factor, stable, vector in zip(pair, self._stable(pair), vectors, strict=True):
                factor.copy_(torch.where(usable, updated(stable, vector, self.gamma, self.update), factor))

    def _stable(self, pair: list[Tensor]) -> list[Tensor]:
        large = [factor.abs().amax() > self.threshold for factor in pair]
        if self.update == "released":
            return [torch.where(large[0] | large[1], eye(factor), factor) for factor in pair]
        mixed = [self.zeta * factor + (1 - self.zeta) * eye(factor) for factor in pair]
        return [torch.where(big, mix, factor) for big, mix, factor in zip(large, mixed, pair, strict=True)]

    def _mean_loss(self) -> float:
        if not self._losses:
            raise InputError(
                "the criterion that switches MKOR off has seen no loss; call observe(loss) before step(), or step(closure)"
            )
        mean = torch.stack([loss.double() for loss in self._losses]).mean()
        self._losses.clear()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            mean = mean.float()
            torch.distributed.all_reduce(mean)
            mean /= torch.distributed.get_world_size()
        return float(mean)

    def _precondition(self, layer: Layer) -> None:
        weight, bias = layer.weight.grad, layer.bias.grad if layer.bias is not None else None
        if weight is None:
            return
        if isinstance(weight, DTensor):
            raise InputError(
                f"MKOR: the weights of {layer.name} are sharded (FSDP2); use DDP, or an optimizer of the core alone"
            )
        left, right = self.factors[layer.name]
        parts = [weight.reshape(weight.shape[0], -1).to(left.dtype)]
        if layer.bias is not None:
            parts.append((bias[:, None] if bias is not None else weight.new_zeros(weight.shape[0], 1)).to(left.dtype))
        whole = left @ torch.cat(parts, 1) @ right
        changed = list(whole.split([p.shape[1] for p in parts], 1))
        scale = norm_ratio(parts, changed, together=self.update != "released")
        weight.copy_((scale * changed[0]).reshape(weight.shape))
        if bias is not None:
            bias.copy_(scale * changed[1][:, 0])

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """Return the backend's state with the factors under ``mkor``."""
        factors = {name: {"left": pair[0], "right": pair[1]} for name, pair in self.factors.items()}
        own: dict[str, Any] = {"count": self.count, "on": self.on, "factors": factors, "losses": list(self._losses)}
        if self.switch_off is not None:
            own["switch_off"] = self.switch_off.state_dict()
        return {**self.backend.state_dict(), "mkor": own}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state of the same model and backend."""
        own = state_dict.get("mkor")
        if own is None or set(own["factors"]) != set(self.factors):
            found = "no MKOR state" if own is None else f"factors of {sorted(own['factors'])}"
            raise InputError(
                f"the saved state holds {found}, this MKOR has layers {sorted(self.factors)}; load one of the same model"
            )
        self.backend.load_state_dict({k: v for k, v in state_dict.items() if k != "mkor"})
        for name, pair in self.factors.items():
            for factor, side in zip(pair, ("left", "right"), strict=True):
                factor.copy_(own["factors"][name][side])
        self.count, self._losses = own["count"], list(own["losses"])
        if self.switch_off is not None and "switch_off" in own:
            self.switch_off.load_state_dict(own["switch_off"])
        if not own["on"]:
            self.remove()
        self._forget()
        self._take_next()


class MKORH(MKOR):
    """MKOR that goes on as its plain backend once the loss falls too slowly (`SwitchOff`; the criterion is reconstructed).

    Needs the loss: ``optimizer.observe(loss)`` before every ``step()``, or ``step(closure)``.

    Example::

        optimizer = MKORH(model, SGDM(model.parameters(), lr=0.05), switch_off=SwitchOff(patience=5))
    """

    def __init__(
        self, model: nn.Module, backend: torch.optim.Optimizer, *, switch_off: SwitchOff | None = None, **options: Any
    ) -> None:
        super().__init__(model, backend, switch_off=switch_off or SwitchOff(), **options)
