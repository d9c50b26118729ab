"""Weights stored as codes and scales: one byte per weight, or half a byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.optim.arena import matrix_shape
from visviva.optim.quantizer import FP8, Int, Lattice

KINDS: dict[str, type[Lattice | FP8 | Int]] = {"Lattice": Lattice, "FP8": FP8, "Int": Int}


@dataclass(frozen=True)
class QuantizedTensor:
    """Weights as codes and scales: one byte per weight (half a byte for 4 bits) and a float32 per tensor, row or block.

    `pack` rounds to nearest; weights that lie on the lattice come back bit for bit. `tensors` and `metadata` are what a
    safetensors file takes.

    Example::

        from safetensors.torch import load_file, save_file

        packed = QuantizedTensor.pack(torch.randn(64, 32), FP8())
        save_file(packed.tensors(), "weight.safetensors", metadata=packed.metadata())
        weight = QuantizedTensor.restore(load_file("weight.safetensors"), packed.metadata()).unpack()
    """

    codes: Tensor
    scale: Tensor
    shape: tuple[int, ...]
    quantizer: Lattice | FP8 | Int
    dtype: torch.dtype

    @classmethod
    @torch.no_grad()
    def pack(cls, weights: Tensor, quantizer: Lattice | FP8 | Int) -> QuantizedTensor:
        """Return the codes and scales of a tensor of any shape (matrices as ``[out, rest]``)."""
        x = weights.detach().to(torch.promote_types(weights.dtype, torch.float32)).reshape(1, *matrix_shape(weights.shape))
        if isinstance(quantizer, Lattice):
            scale, codes = torch.tensor(quantizer.step, dtype=torch.float64), _narrow((x / quantizer.step).round())
        else:
            groups = quantizer.grouped(x)
            wide = quantizer.scales(groups)
            codes, scale = quantizer.snap(groups / wide), wide.float()
            codes = codes.to(torch.float8_e4m3fn if isinstance(quantizer, FP8) else torch.int8)
        if isinstance(quantizer, Int) and quantizer.bits == 4:
            codes = _halves(codes)
        return cls(codes, scale, tuple(weights.shape), quantizer, weights.dtype)

    def unpack(self) -> Tensor:
        """Return the weights, in the dtype that was packed."""
        codes = self.codes
        if isinstance(self.quantizer, Int) and self.quantizer.bits == 4:
            pairs = torch.stack(((codes << 4).view(torch.int8) >> 4, codes.view(torch.int8) >> 4), -1).flatten()
            count, groups = torch.Size(self.shape).numel(), self.scale.shape[1]
            count = groups * self.quantizer.block if self.quantizer.per == "block" else count
            codes = pairs[:count].reshape(1, groups, -1)
        wide = torch.promote_types(self.dtype, torch.float32)
        values = codes.to(wide) * self.scale.to(wide)
        return values.flatten()[: torch.Size(self.shape).numel()].reshape(self.shape).to(self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that codes and scales occupy in memory."""
        return self.codes.untyped_storage().nbytes() + self.scale.untyped_storage().nbytes()

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to save."""
        return {"codes": self.codes, "scale": self.scale}

    def metadata(self) -> dict[str, str]:
        """Return what `restore` needs besides the tensors."""
        spec = {"kind": type(self.quantizer).__name__, **asdict(self.quantizer)}
        return {"quantizer": json.dumps(spec), "shape": json.dumps(self.shape), "dtype": str(self.dtype).split(".")[1]}

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> QuantizedTensor:
        """Return the tensor that `tensors` and `metadata` describe."""
        spec: dict[str, Any] = json.loads(metadata["quantizer"])
        kind = spec.pop("kind")
        if kind not in KINDS:
            raise InputError(f"the stored quantizer is {kind!r}; allowed are {', '.join(KINDS)}; store the tensor again")
        quantizer = KINDS[kind](**spec)
        shape = tuple(json.loads(metadata["shape"]))
        return cls(tensors["codes"], tensors["scale"], shape, quantizer, getattr(torch, metadata["dtype"]))


def _narrow(codes: Tensor) -> Tensor:
    largest = float(codes.abs().max()) if codes.numel() else 0.0
    return codes.to(torch.int8 if largest < 128 else torch.int16 if largest < 1 << 15 else torch.int32)


def _halves(codes: Tensor) -> Tensor:
    """Return two 4-bit codes per byte, the first in the lower half."""
    flat = torch.nn.functional.pad(codes.flatten(), (0, codes.numel() % 2)).view(torch.uint8).view(-1, 2)
    return (flat[:, 0] & 15) | (flat[:, 1] << 4)
