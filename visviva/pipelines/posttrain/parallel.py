"""One, many or sharded processes: DDP and FSDP2 around the denoising networks, launched and configured by accelerate.

What is wrapped is a module that holds the networks and runs any function inside its ``forward``: a whole training computation
(all sampler steps, decoding, laws) is one forward pass for DDP and FSDP2, however often it calls the networks, so that
gradients are exchanged once per backward pass and recomputation does not confuse the bookkeeping.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, FullyShardedDataParallelPlugin
from torch import nn

from visviva.errors import InputError

T = TypeVar("T")


class Denoiser(nn.Module):
    """The networks that are trained; calling it with a function runs the function as its forward pass."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)

    def forward(self, function: Callable[[], T]) -> T:
        """Run ``function``, which calls the networks as it likes."""
        return function()


def start(device: str, trackers: list[str], folder: str) -> Accelerator:
    """Return the accelerator of this process, by the environment of ``accelerate launch`` or ``torchrun``.

    Args:
        device: "cpu", "cuda" or "auto". On the CPU several processes talk over gloo.
        trackers: accelerate trackers to log with.
        folder: where trackers write.

    Raises:
        InputError: no such device, or FSDP of version 1.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("model.device is 'cuda' but torch sees no GPU; use 'cpu' or 'auto', or see 'visviva doctor'")
    cpu = device == "cpu" or not torch.cuda.is_available()
    plugin = None
    if sharded():
        plugin = FullyShardedDataParallelPlugin()
        if plugin.fsdp_version != 2:
            raise InputError(
                "FSDP 1 is not supported; set fsdp_version: 2 in the accelerate config (or take the shipped fsdp2)"
            )
    try:
        accelerator = Accelerator(
            cpu=cpu,
            mixed_precision="no",  # autocast is placed by hand: the denoiser only, never the decoder and the laws
            fsdp_plugin=None if cpu else plugin,
            log_with=list(trackers) or None,
            project_dir=folder,
            step_scheduler_with_optimizer=False,
            kwargs_handlers=[DistributedDataParallelKwargs()],
        )
    except (ValueError, ImportError) as error:
        raise InputError(f"accelerate cannot start with trackers {trackers}: {error}") from error
    kept = {str(getattr(tracker, "value", tracker)) for tracker in accelerator.log_with}
    if missing := [name for name in trackers if name not in kept]:
        raise InputError(
            f"the tracker {missing[0]!r} is not installed; install it (pip install {missing[0]}) or leave it out of trackers"
        )
    return accelerator


def leave() -> None:
    """Leave the process group, if there is one.

    What still holds it (DDP's reducer, in reference cycles) is collected first: otherwise gloo's threads outlive the call and
    may abort the process while the interpreter shuts down.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


def sharded() -> bool:
    """Return whether the launch asked for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")


def wrap(accelerator: Accelerator, denoiser: Denoiser) -> Any:
    """Return the module to call for training: DDP or FSDP2 around ``denoiser``, or itself in a single process.

    FSDP2 shards in place, each transformer block its own group, with torch's ``fully_shard`` and the settings of accelerate's
    plugin. This is the same code on GPUs and on CPU with gloo (where accelerate itself offers no FSDP).
    """
    if accelerator.num_processes == 1:
        return denoiser
    if not sharded():
        # Of two experts (Wan 2.2 A14B) the last sampler steps use only one.
        accelerator.ddp_handler.find_unused_parameters = len(denoiser.networks) > 1
        return accelerator.prepare(denoiser)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    plugin = FullyShardedDataParallelPlugin()
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    names = set(plugin.transformer_cls_names_to_wrap or ["WanTransformerBlock"])
    blocks = [m for m in denoiser.modules() if type(m).__name__ in names]
    if not blocks:
        raise InputError(
            f"fsdp_transformer_layer_cls_to_wrap is {sorted(names)}, but the model has no such layers; Wan's are "
            "WanTransformerBlock, other families' the classes of transformer.transformer_blocks"
        )
    options = {"mesh": mesh, "offload_policy": plugin.cpu_offload} if plugin.cpu_offload else {"mesh": mesh}
    for block in blocks:
        fully_shard(block, reshard_after_forward=bool(plugin.reshard_after_forward), **options)
    # The root is resharded too, so that weights swapped in between two forward passes (EMA, frozen base) are seen.
    fully_shard(denoiser, reshard_after_forward=True, **options)
    return denoiser


def no_exchange(accelerator: Accelerator, model: Any, last: bool) -> Any:
    """Return a context in which gradients stay local, unless this is the last micro-step of an update."""
    from contextlib import nullcontext

    if last or accelerator.num_processes == 1:
        return nullcontext()
    if sharded():
        return _Unsynced(model)
    return accelerator.no_sync(model)


class _Unsynced:
    """FSDP2's no_sync: gradients are kept whole on each process until the last micro-step."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.model.set_requires_gradient_sync(False)

    def __exit__(self, *error: object) -> None:
        self.model.set_requires_gradient_sync(True)
