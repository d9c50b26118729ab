"""Put saved low-rank adapters onto a backbone, and count that every one of them found its place."""

from __future__ import annotations

from pathlib import Path

from visviva.errors import InputError
from visviva.models.attention import saved
from visviva.models.backbones.backbone import Backbone
from visviva.models.control import saved as control
from visviva.models.experts import saved as experts

FILE = "pytorch_lora_weights.safetensors"
"""The name diffusers gives to adapter files."""
SHIPPED = Path(__file__).parents[1] / "weights" / "tiny-force"
"""Adapters with force control for the shipped model, by the name ``tiny-force``."""


def load_lora(backbone: Backbone, path: str | Path) -> int:
    """Load adapters in diffusers format and return how many tensors were matched.

    ``path`` is a .safetensors file, the folder that holds it, or ``"tiny-force"`` (shipped: force control of the tiny model).
    The adapters of a second expert (Wan 2.2 A14B) lie in that folder's ``transformer_2``. What stands beside them is switched
    on: momentum attention, force control, physical experts.

    Raises:
        InputError: no such file, or an adapter whose layers this model does not have (a wrong checkpoint family).
    """
    files = lora_files(path)
    control.load(backbone, files[0].parent)
    for file, network in zip(files, backbone.networks().values(), strict=False):
        experts.load(network, file.parent)
        saved.load(network, file.parent)
    return sum(_load(backbone, file, second) for file, second in zip(files, (False, True), strict=False))


def _load(backbone: Backbone, file: Path, second: bool) -> int:
    from safetensors import SafetensorError, safe_open

    if second and backbone.transformer_2 is None:
        raise InputError(f"{file}: adapters of a second expert, but this {backbone.family} model has only one")
    try:
        with safe_open(file, "pt") as content:
            given = len(list(content.keys()))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a safetensors file ({error})") from error
    before = _adapter_tensors(backbone)
    options = {"load_into_transformer_2": True} if second else {}
    try:
        backbone.pipeline.load_lora_weights(str(file.parent), weight_name=file.name, use_safetensors=True, **options)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"{file}: its adapters do not fit a {backbone.family} model ({str(error).splitlines()[0]})") from error
    matched = _adapter_tensors(backbone) - before
    if not given or matched != given:
        raise InputError(
            f"{file}: {matched} of its {given} adapter tensors fit this {backbone.family} model; it was trained on another one"
        )
    return matched


def lora_files(path: str | Path) -> list[Path]:
    """Return the adapter files at ``path``: that of the first network, and where there is one that of the second."""
    path = SHIPPED if str(path) == "tiny-force" else Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise InputError(f"no adapters at {str(path)!r}; give a .safetensors file, or the folder that holds {FILE}")
    second = path / "transformer_2" / FILE
    return [file, second] if path.is_dir() and second.is_file() else [file]


def weight_files(path: str | Path) -> list[Path]:
    """Return every file that `load_lora` reads at ``path``: the adapters, and what stands beside them."""
    files = lora_files(path)
    beside = [file.parent / name for file in files for name in (control.FILE, experts.FILE, saved.FILE)]
    return [*files, *(file for file in beside if file.is_file())]


def _adapter_tensors(backbone: Backbone) -> int:
    """Count adapter tensors, but not those of layers that diffusers adds to text-to-video adapters on Wan 2.1 image-to-video.

    Those are zero in both factors; a trained or fresh adapter's first factor never is.
    """
    count = 0
    for network in backbone.networks().values():
        adapters = {name: p for name, p in network.named_parameters() if "lora_" in name}
        empty = {name.split(".lora_")[0] for name, p in adapters.items() if ".lora_A" in name and not bool(p.any())}
        count += sum(name.split(".lora_")[0] not in empty for name in adapters)
    return count
