"""What is shipped beside the weights: recipe, curves (numbers and picture) and a model card, written by the training itself."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from visviva.configs.pretrain import PretrainRecipe
from visviva.eval.run import provenance
from visviva.models.backbones.wan import WanBackbone
from visviva.pipelines.pretrain.clips import Clips


def write(backbone: WanBackbone, recipe: PretrainRecipe, clips: Clips, held_out: Clips, out: Path, model: Path) -> None:
    """Write ``recipe.json``, the curves, ``README.md`` and ``SHA256SUMS`` into the model's folder."""
    curves = {name: _lines(out / f"{name}.jsonl") for name in ("autoencoder", "denoiser")}
    for name in curves:
        if curves[name]:
            shutil.copy(out / f"{name}.jsonl", model / f"{name}.jsonl")
    (model / "recipe.json").write_text(recipe.model_dump_json(indent=1) + "\n")
    _draw(curves, model / "curves.png")
    (model / "README.md").write_text(_card(backbone, recipe, clips, held_out, curves))
    files = sorted(f for f in model.rglob("*") if f.is_file() and f.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(model).as_posix()}\n" for f in files]
    (model / "SHA256SUMS").write_text("".join(sums))


def _lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _draw(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for axis, (name, key, label) in zip(
        axes, (("autoencoder", "psnr", "held-out PSNR [dB]"), ("denoiser", "validation", "held-out loss")), strict=True
    ):
        axis.plot([row["step"] for row in curves[name]], [row[key] for row in curves[name]], ".-", color="#1f6feb")
        axis.set(title=name, xlabel="update", ylabel=label)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _card(
    backbone: WanBackbone, recipe: PretrainRecipe, clips: Clips, held_out: Clips, curves: dict[str, list[dict[str, float]]]
) -> str:
    sizes = {n: sum(p.numel() for p in getattr(backbone, n).parameters()) for n in ("vae", "transformer", "text_encoder")}
    parts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in sizes.items())
    last = {name: rows[-1] if rows else {} for name, rows in curves.items()}
    made = provenance()
    both = ", and their mirror images" if recipe.denoiser.mirror else ""
    psnr, loss = last["autoencoder"].get("psnr", float("nan")), last["denoiser"].get("validation", float("nan"))
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"""# tiny Wan

A tiny image-to-video model with text, of the real Wan 2.2 TI2V classes of diffusers, trained from scratch on clips simulated by
visviva. It exists so that everything runs without a download or a GPU, through the code that a 14B model goes through. It knows
five motions of a few objects in a 64 x 64 picture and nothing else.

| | |
|---|---|
| parameters | {parts} |
| clips | {clips.frames.shape[1]} frames, {clips.frames.shape[3]} x {clips.frames.shape[4]} px |
| training set | {len(clips)} clips, fingerprint {clips.fingerprint}{both} |
| held-out set | {len(held_out)} clips, fingerprint {held_out.fingerprint} |
| autoencoder | {last["autoencoder"].get("step", 0)} updates, held-out round trip {psnr:.2f} dB |
| denoiser | {last["denoiser"].get("step", 0)} updates, held-out loss {loss:.4f} |
| seed | {recipe.seed} |
| made with | {versions}; {made["machine"]}; commit {made.get("commit") or "unknown"} |

Weights are bfloat16 safetensors, averaged over updates (EMA). `recipe.json` holds every setting, `*.jsonl` and `curves.png` the
curves. Train it again with `visviva pretrain --config pretrain-tiny-wan`.

Plain diffusers loads it; pass `max_sequence_length={backbone.text_length}`:

```python
from diffusers import WanImageToVideoPipeline

pipe = WanImageToVideoPipeline.from_pretrained("<this folder>")
clip = pipe(
    image=first_frame,
    prompt="free fall of a ball, height 1.58 m, view 2.31 m",
    height=64,
    width=64,
    num_frames=17,
    num_inference_steps=8,
    guidance_scale=1.0,
    max_sequence_length={backbone.text_length},
).frames[0]
```

Licence: Apache-2.0, as the package. The training clips are synthetic; no third-party data or weights were used.
"""
