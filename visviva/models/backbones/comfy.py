"""Write saved adapters under the names that ComfyUI gives to a model's layers, and count them.

ComfyUI's LoRA loader takes ``diffusion_model.LAYER.lora_A.weight``, ``.lora_B.weight`` and ``.alpha`` for the layers of its own
networks, and adds ``alpha / rank * B A`` to their weights. Those networks keep the names of the models' first releases, not
those of diffusers; where they keep several of diffusers' layers in one (query, key, value), the adapters are put into one too,
exactly: the A stand one below the other, the B on the diagonal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from visviva.errors import InputError, closest
from visviva.models.backbones.lora import lora_files


def _blocks(ours: str, theirs: str, layers: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.#.{name}": f"{theirs}.#.{layer}" for name, layer in layers.items()}


LAYERS: dict[str, dict[str, str]] = {
    "wan": _blocks("blocks", "blocks", {
        "attn1.to_q": "self_attn.q", "attn1.to_k": "self_attn.k", "attn1.to_v": "self_attn.v", "attn1.to_out.0": "self_attn.o",
        "attn2.to_q": "cross_attn.q", "attn2.to_k": "cross_attn.k", "attn2.to_v": "cross_attn.v",
        "attn2.to_out.0": "cross_attn.o", "attn2.add_k_proj": "cross_attn.k_img", "attn2.add_v_proj": "cross_attn.v_img",
        "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2",
    }),
    "ltx-video": _blocks("transformer_blocks", "transformer_blocks", {
        name: name for name in (
            "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k", "attn2.to_v",
            "attn2.to_out.0", "ff.net.0.proj", "ff.net.2",
        )
    }),
    "cogvideox": _blocks("transformer_blocks", "blocks", {
        "attn1.to_q": "q", "attn1.to_k": "k", "attn1.to_v": "v", "attn1.to_out.0": "attn_out",
        "ff.net.0.proj": "ff_proj", "ff.net.2": "ff_out",
    }),
    "hunyuan-video": _blocks("transformer_blocks", "double_blocks", {
        "attn.to_q": "img_attn_qkv", "attn.to_k": "img_attn_qkv", "attn.to_v": "img_attn_qkv", "attn.to_out.0": "img_attn_proj",
        "attn.add_q_proj": "txt_attn_qkv", "attn.add_k_proj": "txt_attn_qkv", "attn.add_v_proj": "txt_attn_qkv",
        "attn.to_add_out": "txt_attn_proj", "ff.net.0.proj": "img_mlp.fc1", "ff.net.2": "img_mlp.fc2",
        "ff_context.net.0.proj": "txt_mlp.fc1", "ff_context.net.2": "txt_mlp.fc2",
    }) | _blocks("single_transformer_blocks", "single_blocks", {
        "attn.to_q": "linear1", "attn.to_k": "linear1", "attn.to_v": "linear1", "proj_mlp": "linear1", "proj_out": "linear2",
    }),
    "mochi": _blocks("transformer_blocks", "blocks", {
        "attn1.to_q": "attn.qkv_x", "attn1.to_k": "attn.qkv_x", "attn1.to_v": "attn.qkv_x", "attn1.to_out.0": "attn.proj_x",
        "attn1.add_q_proj": "attn.qkv_y", "attn1.add_k_proj": "attn.qkv_y", "attn1.add_v_proj": "attn.qkv_y",
        "attn1.to_add_out": "attn.proj_y", "ff.net.0.proj": "mlp_x.w1", "ff.net.2": "mlp_x.w2",
        "ff_context.net.0.proj": "mlp_y.w1", "ff_context.net.2": "mlp_y.w2",
    }),
}  # fmt: skip
"""Family -> layer in diffusers -> layer in ComfyUI (#: the block's number). Layers that share one stand in it in this order."""

HALVES_SWAPPED = (".mlp_x.w1", ".mlp_y.w1")
"""Layers of Mochi whose rows are (gate, value) in ComfyUI and (value, gate) in diffusers."""


class Written(NamedTuple):
    """One file for ComfyUI: how many adapted modules it holds, in how many layers of ComfyUI's."""

    file: Path
    modules: int
    layers: int


def write(path: str | Path, output: str | Path, family: str) -> list[Written]:
    """Write the adapters at ``path`` (as `visviva.models.backbones.lora.lora_files` finds them) for ComfyUI; return the counts.

    ``output`` is a new .safetensors file, such as ``ComfyUI/models/loras/newton.safetensors``. The two experts of Wan 2.2 A14B
    are two models in ComfyUI, so their adapters are two files: ``newton-high-noise.safetensors`` and ``newton-low-noise``.
    ``family`` names the model that was trained, a key of `LAYERS`; it is not checked beyond the layers' names. What stands
    beside the adapters (momentum attention, force control, physical experts) is not written: ComfyUI has no place for it.

    Raises:
        InputError: no adapters, another family, a layer without a place in ComfyUI's network, or a file that is there already.

    Example::

        for file, modules, layers in write("runs/newton/lora-ema", "newton.safetensors", family="wan"):
            print(f"{file}: {modules} adapted modules")
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    sources, output = lora_files(path), Path(output)
    names = [output] if len(sources) == 1 else [output.with_stem(f"{output.stem}-{noise}-noise") for noise in ("high", "low")]
    for name in names:
        if name.suffix != ".safetensors" or name.exists():
            raise InputError(f"output {str(name)!r}: give the path of a new .safetensors file")
    made = [renamed(*_read(source), family, str(source)) for source in sources]
    output.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (tensors, modules) in zip(names, made, strict=True):
        try:
            save_file(tensors, name)
        except SafetensorError as error:
            raise InputError(f"cannot write {str(name)!r}: {error}; free some space and start again") from error
        written.append(Written(name, modules, len(tensors) // 3))
    return written


def renamed(
    adapters: Mapping[str, Tensor], scale: float, family: str, source: str = "adapters"
) -> tuple[dict[str, Tensor], int]:
    """Return adapters (by diffusers' names) under ComfyUI's names, and the number of adapted modules: every one, or an error.

    ``scale`` (alpha / rank) multiplies B A in diffusers; the ``alpha`` written is it times the rank of what is written.

    Raises:
        InputError: a tensor that is no A or B, or lies outside the family's layers, or a part of a layer that lacks the others.
    """
    tensors: dict[str, Tensor] = {}
    for layer, pairs in _gathered(adapters, family, source).items():
        down, up = pairs[0] if len(pairs) == 1 else _joined(pairs)
        if layer.endswith(HALVES_SWAPPED):
            up = torch.cat(up.chunk(2)[::-1])
        key = f"diffusion_model.{layer}"
        tensors |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up, f"{key}.alpha": torch.tensor(scale * len(down))}
    return tensors, len(adapters) // 2


def _gathered(adapters: Mapping[str, Tensor], family: str, source: str) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Return each layer of ComfyUI's with the pairs (A, B) that belong into it, in their order; every tensor is in one pair."""
    if family not in LAYERS:
        raise InputError(f"family {family!r}: ComfyUI's names are known for {', '.join(LAYERS)}{closest(family, LAYERS)}")
    table, found = LAYERS[family], dict[str, dict[str, tuple[Tensor, Tensor]]]()
    for module in sorted({re.sub(r"\.lora_[AB]\.weight$", "", key) for key in adapters}):
        down, up = (adapters.get(f"{module}.lora_{side}.weight") for side in "AB")
        name, number = _numbered(module.removeprefix("transformer."))
        if down is None or up is None or name not in table or not module.startswith("transformer."):
            raise InputError(f"{source}: no place for {module!r} in ComfyUI's {family} model; nothing was written")
        found.setdefault(table[name].replace("#", number), {})[name] = (down, up)
    layers = {}
    for layer, parts in found.items():
        wanted = [name for name, theirs in table.items() if theirs == _numbered(layer)[0]]
        missing = [name for name in wanted if name not in parts]
        if missing:
            raise InputError(
                f"{source}: ComfyUI's {layer} is {', '.join(wanted)} in one, and {', '.join(missing)} has no adapter; "
                "train all of them (lora.targets), or none"
            )
        layers[layer] = [parts[name] for name in wanted]
    return layers


def _numbered(name: str) -> tuple[str, str]:
    """Return ``blocks.3.ffn.0`` as ``blocks.#.ffn.0`` and ``3``."""
    found = re.match(r"(\w+)\.(\d+)\.", name)
    return (f"{found[1]}.#.{name[found.end() :]}", found[2]) if found else (name, "")


def _joined(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return one pair of factors whose product is those of the ``pairs`` one below the other."""
    return torch.cat([down for down, _ in pairs]), torch.block_diag(*(up for _, up in pairs))


def _read(file: Path) -> tuple[dict[str, Tensor], float]:
    """Return the tensors of an adapter file of diffusers, and what multiplies their products."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as content:
            tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
            options = json.loads((content.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{file}: no adapters of diffusers ({error})") from error
    if not tensors:
        raise InputError(f"{file}: holds no adapters")
    options = {key.removeprefix("transformer."): value for key, value in options.items()}
    own = [key for key in ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern") if options.get(key)]
    if own:
        raise InputError(
            f"{file}: adapters with {own[0]} cannot be written for ComfyUI; train them with one rank and one alpha"
        )
    return tensors, options["lora_alpha"] / options["r"] if options else 1.0
