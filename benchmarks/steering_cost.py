"""What an update of every objective costs: passes counted on the tiny model, operations and memory at the size of Wan 2.1 1.3B.

    python benchmarks/steering_cost.py --output benchmarks/results/steering_cost.json

Each arm of `steering.py` does two updates on the shipped model; clips through the denoiser and latent frames through the
decoder are counted per clip of the effective batch, without and with gradient (guidance counts twice), and the second update
is timed. One pass at 81 x 480 x 832 costs what the meta device counts for Wan 2.1 1.3B with rank-16 adapters, whose frozen
weights get no gradient, and for its autoencoder's decoder. An update then costs

    plain F + graded (2 F + B) + decoded D + graded decoded (2 D + E)    [FLOP per clip]

with F and D forward, B and E backward: every graded pass is run once more by checkpointing, as at that size it must be. Probe
and laws are 1 % of a pass (`law_cost.py`). *Memory* is that of weights: frozen ones in bfloat16; adapters, their gradient, two
moments and their average in float32; and the reference: none where adapters are switched off (the LoRA switch of PhyGDPO), a
second bfloat16 copy where it is duplicated. Activations at that size are counted by `steering_size.py`, those of the tiny model
and its times measured by `steering_memory.py`; ``--parts`` makes some of it again and leaves the rest as it stands. Nothing was
run at that size.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import steering_size
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from law_cost import WAN
from peft import LoraConfig
from steering import ARMS, Clocked
from steering_memory import fresh
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from visviva.configs.generate import GenerateRecipe
from visviva.configs.posttrain import PosttrainRecipe
from visviva.configs.prefer import PreferRecipe
from visviva.configs.schema import load
from visviva.configs.simulate import SimulateRecipe
from visviva.eval.run import provenance, write_json
from visviva.pipelines import generate, prefer, simulate
from visviva.pipelines.posttrain.log import read
from visviva.pipelines.posttrain.parallel import leave

FRAMES, HEIGHT, WIDTH = 21, 60, 104
"""Latents of a clip of 81 x 480 x 832."""
PARTS = {
    "passes": "passes per clip and update of the shipped model, 4 sampler steps; their cost at 81 x 480 x 832, Wan 2.1 1.3B",
    "tiny": "memory and CPU time of one update of one clip, the shipped model, a fresh process each",
    "reference": "dpo with adapters switched off and with a duplicated reference, turn about in one process",
    "size": "memory of one update of one clip at 81 x 480 x 832, Wan 2.1 1.3B, counted on tensors without numbers",
}
TARGETS = r"blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ffn\.(net\.0\.proj|net\.2))"


class Counted(Clocked):
    """The trainer, with the passes of each update in its log: clips through the denoiser, latent frames through the decoder."""

    def update(self, update: int) -> dict[str, float]:
        """Do one update and count; what is run again within the backward pass is not counted twice."""
        counts = dict.fromkeys(("plain", "graded", "decoded", "graded_decoded"), 0)

        def see(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
            x: Tensor = args[0] if args else given["hidden_states"]
            decoder = module is self.backbone.vae.decoder
            graded = torch.is_grad_enabled() and (x.requires_grad or not decoder)
            name = ("graded_decoded" if graded else "decoded") if decoder else ("graded" if graded else "plain")
            if torch._C._current_graph_task_id() == -1:
                counts[name] += len(x) * (x.shape[2] if decoder else 1)

        seen = [*self.backbone.networks().values(), self.backbone.vae.decoder]
        hooks = [module.register_forward_pre_hook(see, with_kwargs=True) for module in seen]
        try:
            values = super().update(update)
        finally:
            for hook in hooks:
                hook.remove()
        return values | {f"passes_{name}": float(count) for name, count in counts.items()}


def data(folder: Path) -> tuple[Path, Path]:
    """Make eight clips and as many pairs."""
    clips = simulate.run(SimulateRecipe(output=str(folder / "data"), clips=8, seed=5, arrays="small"))
    made = generate.run(GenerateRecipe(prompts=str(clips), output=str(folder / "made"), samples=2, model={"path": "tiny"}))
    return clips, prefer.run(PreferRecipe(generated=str(made), output=str(folder / "pairs"), losers=1))


def passes(folder: Path, clips: Path, pairs: Path) -> dict[str, dict[str, float]]:
    """Two updates of every arm on the shipped model: passes per clip of the effective batch, and CPU seconds of the second."""
    found = {}
    for arm, (name, changes) in ARMS.items():
        fixed = {
            "data.path": str(pairs if "dpo" in arm else clips),
            "output": str(folder / arm),
            "max_steps": 2,
            "save_every": 2,
        }
        quiet = {"validation.every": 0, "trackers": [], "monitor.every": 0, "sampler.steps": 4, "optimizer.warmup": 0}
        recipe = load(PosttrainRecipe, name, **fixed, **quiet, **changes)
        recipe.check()
        try:
            Counted(recipe).run()
        finally:
            leave()
        line = [row for row in read(folder / arm / "metrics.jsonl") if row["kind"] == "train"][-1]
        many = recipe.batch_size * recipe.gradient_accumulation
        counts = {key[7:]: value / many for key, value in line.items() if key.startswith("passes_")}
        found[arm] = counts | {"cpu_seconds_per_clip": line["cpu_seconds"] / many}
        print(arm, found[arm], flush=True)
    return found


def operations() -> dict[str, float]:
    """FLOP of a pass through Wan 2.1 1.3B with adapters and of decoding one latent frame, forward and backward."""
    with torch.device("meta"):
        network = WanTransformer3DModel(**WAN).requires_grad_(False)
        network.add_adapter(LoraConfig(r=16, lora_alpha=16, target_modules=TARGETS))
        decoder = AutoencoderKLWan().requires_grad_(False)
        latents = torch.empty(1, 16, FRAMES, HEIGHT, WIDTH, requires_grad=True)
        text, time = torch.empty(1, 512, 4096), torch.empty(1)
    found = {}
    with FlopCounterMode(display=False) as count:
        out = network(latents, time, text).sample
        found["denoiser_forward"] = count.get_total_flops()
        out.sum().backward()
        found["denoiser_backward"] = count.get_total_flops() - found["denoiser_forward"]
    with FlopCounterMode(display=False) as count:
        frames = decoder.decode(latents).sample
        found["decode_forward"] = count.get_total_flops() / FRAMES
        frames.sum().backward()
        found["decode_backward"] = count.get_total_flops() / FRAMES - found["decode_forward"]
    weights = [p for p in network.parameters() if not p.requires_grad]
    adapters = [p for p in network.parameters() if p.requires_grad]
    return found | {"frozen_numbers": sum(p.numel() for p in weights), "adapter_numbers": sum(p.numel() for p in adapters)}


def at_size(count: dict[str, float], one: dict[str, float], reference: bool) -> dict[str, float]:
    """PFLOP per clip of an update, and GB of weights and states, at the size of Wan 2.1 1.3B."""
    f, b, d, e = (one[name] for name in ("denoiser_forward", "denoiser_backward", "decode_forward", "decode_backward"))
    share = FRAMES / 5  # the tiny clip has five latent frames
    flop = count["plain"] * f + count["graded"] * (2 * f + b)
    flop += share * (count["decoded"] * d + count["graded_decoded"] * (2 * d + e))
    states = 2 * one["frozen_numbers"] + 4 * 5 * one["adapter_numbers"]
    copy = 2 * one["frozen_numbers"] if reference else 0
    return {"pflop_per_clip": flop / 1e15, "weights_gb": states / 1e9, "with_duplicated_reference_gb": (states + copy) / 1e9}


def parts(names: list[str], folder: Path) -> Iterator[tuple[str, Any]]:
    """Make the parts that are asked for, one after the other."""
    clips, pairs = data(folder) if {"passes", "tiny", "reference"} & set(names) else (folder, folder)
    if "passes" in names:
        one = operations()
        counts = passes(folder, clips, pairs)
        rows = {arm: count | at_size(count, one, "dpo" in arm or "grpo" in arm) for arm, count in counts.items()}
        yield "passes", {"wan_1.3b": one, "arms": rows}
    if "tiny" in names:
        yield "tiny", {case: shown(case, fresh(case, clips, pairs)) for case in [*ARMS, "dpo+copy"]}
    if "reference" in names:
        yield "reference", shown("compared", fresh("compared", clips, pairs))
    if "size" in names:
        yield "size", steering_size.counts()


def shown(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """Print a row and return it."""
    print(name, row, flush=True)
    return row


def main() -> None:
    """Make the parts; write each when it is there, with the versions and the commit that made it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="benchmarks/results/steering_cost.json")
    options.add_argument("--parts", nargs="+", default=[*PARTS], choices=[*PARTS])
    given = options.parse_args()
    torch.set_num_threads(1)
    path = Path(given.output)
    result = json.loads(path.read_text()) if path.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name, part in parts(given.parts, Path(folder)):
            made = provenance() | {"load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
            made["versions"] |= {package: version(package) for package in ("diffusers", "peft")}
            result[name] = {"what": PARTS[name], "made_with": made, **part}
            write_json(path, {"command": "python benchmarks/steering_cost.py", **result})


if __name__ == "__main__":
    main()
