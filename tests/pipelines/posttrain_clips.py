"""Small data for the post-training tests: textured squares that fall, drawn with torch and written as a dataset."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from visviva.configs.posttrain import PosttrainRecipe
from visviva.data.clip import Clip
from visviva.data.dataset import write_rows
from visviva.models.backbones.tiny import tiny_wan

FRAMES, SIZE, FPS = 9, 32, 16.0
SMALL = [
    "--data.frames", str(FRAMES), "--data.height", str(SIZE), "--data.width", str(SIZE), "--model.device", "cpu",
    "--sampler.steps", "2", "--lora.rank", "2", "--lora.alpha", "2", "--trackers", "--validation.every", "0",
]  # fmt: skip


def falling(index: int, masks: bool = True) -> Clip:
    """A textured square under constant acceleration in front of a textured wall."""
    generator = torch.Generator().manual_seed(index)
    wall = torch.nn.functional.interpolate(0.3 * torch.rand(1, 3, 8, 8, generator=generator), SIZE, mode="bicubic")[0].clamp(
        0, 1
    )
    skin = 0.5 + 0.5 * torch.rand(3, 8, 8, generator=generator)
    frames, where = wall.repeat(FRAMES, 1, 1, 1), torch.zeros(FRAMES, 1, SIZE, SIZE, dtype=torch.bool)
    for t in range(FRAMES):
        x, y = 4 + index % 4 + t, round(2 + 0.2 * t * t)
        frames[t, :, y : y + 8, x : x + 8] = skin
        where[t, 0, y : y + 8, x : x + 8] = True
    return Clip(frames, FPS, caption=f"free fall, ball {index % 10}", masks=where if masks else None)


def dataset(folder: Path, count: int = 6, masks: bool = True) -> Path:
    rows = [falling(i, masks).write(folder / "clips", f"{i:06d}", arrays="small" if masks else "none") for i in range(count)]
    write_rows(
        folder / "metadata.jsonl", [{**row, "file_name": f"clips/{row['file_name']}", "scene": i} for i, row in enumerate(rows)]
    )
    return folder


def tiny_model(folder: Path) -> Path:
    tiny_wan("test").save(folder)
    return folder


def short_recipe(output: Path, model: Path, clips: Path, method: str, **sections: object) -> PosttrainRecipe:
    """Two updates of adapters of rank 2 on clips of `dataset`; ``sections`` stand in the place of these settings."""
    base = {
        "output": str(output), "model": {"path": str(model), "device": "cpu"}, "trackers": [], "max_steps": 2,
        "data": {"path": str(clips), "frames": FRAMES, "height": SIZE, "width": SIZE}, "sampler": {"steps": 3},
        "lora": {"rank": 2, "alpha": 2}, "validation": {"every": 0}, "gradient_accumulation": 1, "method": method,
        "grpo": {"group": 2}, "monitor": {"every": 0},
    }  # fmt: skip
    return PosttrainRecipe.model_validate({**base, **sections})


def posttrain(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Run the command line in its own process."""
    command = [sys.executable, "-m", "visviva.pipelines.posttrain", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def lines(output: Path, kind: str = "train") -> list[dict]:
    return [row for row in map(json.loads, (output / "metrics.jsonl").read_text().splitlines()) if row["kind"] == kind]


def trainable():
    """Return a tiny backbone with adapters that already do something."""
    backbone = tiny_wan("test")
    backbone.transformer.requires_grad_(False)
    torch.manual_seed(0)
    backbone.add_lora(2, 2)
    with torch.no_grad():
        for name, parameter in backbone.trainable():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return backbone
