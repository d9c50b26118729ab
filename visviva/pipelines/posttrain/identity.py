"""What makes a run itself: the settings and inputs that shape its weights. A checkpoint is continued only under the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visviva.configs.posttrain import PosttrainRecipe
from visviva.errors import InputError

FREE = ("output", "save_every", "keep", "validation", "trackers", "batch_size", "gradient_accumulation", "verb")
"""Settings that may change between parts of a run. Batch size and accumulation may as long as their product stays."""


def identity(recipe: PosttrainRecipe, effective: int, weights: str, examples: str) -> dict[str, Any]:
    """Return the run's settings by dotted name, with hashes of the base model and of the data.

    ``max_steps`` belongs to it only where the learning rate depends on it, so a constant-rate run can be made longer.
    """
    content = recipe.model_dump(mode="json", exclude=set(FREE))
    content["data"] = {k: v for k, v in content["data"].items() if k not in ("cache", "free_encoders", "path", "prompts")}
    content["model"] = {"dtype": content["model"]["dtype"]}
    content["reward"].pop("checkpointing")
    for name, usual in {"truncation": "fixed", "detach": False, "noises": 1}.items():
        if content["reward"][name] == usual:
            content["reward"].pop(name)
    content["sft"].pop("checkpointing")
    if recipe.optimizer.schedule == "constant":
        content.pop("max_steps")
    if not recipe.rewarded:
        content.pop("reward")
    for section, methods in {"grpo": ("grpo",), "refl": ("refl",), "preference": ("dpo", "phygdpo")}.items():
        if recipe.method not in methods:
            content.pop(section)
    if recipe.attention.kind == "plain":
        content.pop("attention")
    if recipe.control.kind == "none":
        content.pop("control")
    if recipe.experts.kind == "none":
        content.pop("experts")
    elif not recipe.experts.aligned:
        content["experts"] = {k: v for k, v in content["experts"].items() if k not in ("align", "labels")}
    if recipe.experts.align.semantic:  # compares the clips of a micro-batch
        content["batch_size"] = recipe.batch_size
    content.pop("monitor")
    return dotted(content) | {"effective batch": effective, "base model": weights, "data": examples}


def refuse_other(saved: Mapping[str, Any], now: Mapping[str, Any], output: Path) -> None:
    """Raise an `InputError` that names the first settings in which a checkpoint's run differs from this one."""
    names = [n for n in {**saved, **now} if saved.get(n) != now.get(n)]
    if names:
        changes = ", ".join(f"{n} was {saved.get(n)!r}, now {now.get(n)!r}" for n in names[:3])
        raise InputError(
            f"the run in {str(output)!r} was started with other settings: {changes}; use the former ones to continue it, or "
            "another output to start anew"
        )


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one level of dotted names."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves
