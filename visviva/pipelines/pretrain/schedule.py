"""What both stages share: keyed randomness, the learning-rate shape, the log, and exact checkpoints of a training state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.pipelines.posttrain import checkpoint


def generator(seed: int, stage: str, step: int) -> torch.Generator:
    """Return the random stream of one update, independent of every other update's."""
    key = f"{seed}/{stage}/{step}".encode()
    return torch.Generator().manual_seed(int.from_bytes(key[-7:], "little") ^ (step * 0x9E3779B97F4A7C15 + seed) % (1 << 63))


def learning_rate(step: int, steps: int, warmup: int, decay: float) -> float:
    """Return the factor of the peak rate: linear warm-up, constant, then linear fall to zero over the last ``decay`` share.

    >>> [round(learning_rate(s, 100, 10, 0.5), 2) for s in (0, 9, 40, 75, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.02]
    """
    rise = min(1.0, (step + 1) / max(warmup, 1))
    fall = min(1.0, (steps - step) / max(decay * steps, 1))
    return min(rise, fall)


class Log:
    """A curve file, one JSON object per line; lines after the resumed step are dropped so that nothing stands twice."""

    def __init__(self, path: Path, step: int) -> None:
        lines = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept))
        self.path = path

    def write(self, **values: float) -> None:
        """Append one line."""
        with self.path.open("a") as file:
            file.write(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}) + "\n")


class State:
    """Named parameters, their optimizers and further tensors, saved to and restored from complete-or-absent checkpoints."""

    def __init__(self, folder: Path, parameters: Mapping[str, Tensor], optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self.folder, self.parameters, self.optimizers = folder, dict(parameters), dict(optimizers)

    def save(self, step: int, extra: Mapping[str, Tensor], state: Mapping[str, object]) -> None:
        """Write a checkpoint of the finished update ``step``."""
        groups = {"weights": self.parameters, "extra": dict(extra)}
        groups |= {name: checkpoint.optimizer_tensors(opt, self.parameters) for name, opt in self.optimizers.items()}
        checkpoint.save(self.folder, step, groups, state)

    def resume(self) -> tuple[int, dict[str, Tensor], dict[str, object]]:
        """Restore the newest checkpoint, if there is one; return its step, extra tensors and state.

        Raises:
            InputError: the checkpoint is of other optimizers, or of another model.
        """
        path = checkpoint.latest(self.folder)
        if path is None:
            return 0, {}, {}
        saved = checkpoint.load(path)
        found = sorted(set(saved.tensors) - {"weights", "extra"})
        if found != sorted(self.optimizers):
            raise InputError(
                f"the checkpoint {str(path)!r} holds the states of the optimizers {', '.join(found)}, this version of visviva "
                f"trains with {', '.join(sorted(self.optimizers))}; delete {str(self.folder)!r} to train this stage anew, or "
                "go on with the version that wrote it"
            )
        checkpoint.restore(self.parameters, saved.tensors["weights"], str(path))
        for name, optimizer in self.optimizers.items():
            checkpoint.restore_optimizer(optimizer, self.parameters, saved.tensors[name])
        return saved.step, saved.tensors.get("extra", {}), saved.state
