"""How accurate an optical flow is: end-point error, angular error and KITTI's outlier share, and the files of ground truth.

    EPE = mean |f - f*|                        AAE = mean angle between (f, 1) and (f*, 1) [degrees]
    Fl  = 100 * share of pixels with |f - f*| > 3 px and |f - f*| > 0.05 |f*|

over valid pixels. Agrees with open-mmlab's code on golden numbers. This is the gate for whatever flow feeds a law.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError

VERSION = "1"
MAGIC = 202021.25


def flow_errors(
    flow: Float[Tensor, "*B 2 H W"], true: Float[Tensor, "*S 2 h w"], valid: Bool[Tensor, "*V y x"] | None = None
) -> dict[str, Tensor]:
    """Return ``epe`` [px], ``aae`` [degrees], ``fl`` [%] and ``share`` of valid pixels per image, (*B,), float64.

    Lower is better. Images without a valid pixel have NaN, and so have those whose flow is not finite at a valid pixel.
    Runs on the device of its inputs.

    Raises:
        InputError: shapes that differ.

    Example::

        flow_errors(probe(frames, fps).flow, clip.flow[None], clip.flow_valid[None])["epe"].mean()
    """
    if flow.shape != true.shape or (valid is not None and valid.shape != true[..., 0, :, :].shape):
        shapes = f"{tuple(flow.shape)}, {tuple(true.shape)}" + ("" if valid is None else f" and {tuple(valid.shape)}")
        raise InputError(f"flow, true flow and valid pixels of shapes {shapes} do not fit each other; resize or cut them first")
    f, g = flow.double(), true.double()
    keep = (torch.ones_like(g[..., 0, :, :], dtype=torch.bool) if valid is None else valid) & g.isfinite().all(-3)
    apart = torch.linalg.vector_norm(f - g, dim=-3)
    length = torch.linalg.vector_norm(g, dim=-3)
    dot = 1 + (f * g).sum(-3)
    norms = ((1 + f.square().sum(-3)) * (1 + g.square().sum(-3))).sqrt()
    angle = (dot / norms).clamp(-1, 1).acos().rad2deg()
    outlier = torch.where(apart.isnan(), apart, ((apart > 3) & (apart / (length + 1e-6) > 0.05)).double())
    count = keep.flatten(-2).sum(-1).double()
    means = {"epe": apart, "aae": angle, "fl": 100 * outlier}
    found = {name: torch.where(keep, x, 0.0).flatten(-2).sum(-1) / count for name, x in means.items()}
    return found | {"share": count / keep[..., 0, 0].new_tensor(keep.shape[-2] * keep.shape[-1], dtype=torch.float64)}


def read_flow(path: str | Path) -> tuple[Float[Tensor, "2 H W"], Bool[Tensor, "H W"]]:
    """Read ground truth, Middlebury ``.flo`` or KITTI 16-bit ``.png``: flow (dx, dy) [px] and where it is known.

    Raises:
        InputError: missing, another kind of file, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no flow file {str(path)!r}; check the path")
    if path.suffix.lower() == ".flo":
        return _read_flo(path)
    if path.suffix.lower() == ".png":
        return _read_kitti(path)
    raise InputError(f"{path}: not a kind of flow file that is read here; give .flo (Middlebury) or .png (KITTI)")


def _read_flo(path: Path) -> tuple[Tensor, Tensor]:
    content = path.read_bytes()
    head = np.frombuffer(content[:4], "<f4")
    width, height = map(int, np.frombuffer(content[4:12], "<i4")) if len(content) >= 12 else (0, 0)
    if len(head) != 1 or head[0] != MAGIC or len(content) != 12 + 8 * width * height or width < 1 or height < 1:
        raise InputError(f"{path}: not a Middlebury .flo file, or cut off; copy it again")
    flow = torch.from_numpy(np.frombuffer(content[12:], "<f4").reshape(height, width, 2).copy()).permute(2, 0, 1)
    known = (flow.abs() < 1e9).all(0) & flow.isfinite().all(0)
    return torch.where(known, flow, 0.0), known


def write_flo(path: str | Path, flow: Float[Tensor, "2 H W"]) -> None:
    """Write a Middlebury ``.flo`` file."""
    from visviva.data.files import whole

    size = np.array(flow.shape[:0:-1], "<i4")
    with whole(path) as part:
        part.write_bytes(np.float32(MAGIC).tobytes() + size.tobytes() + flow.permute(1, 2, 0).float().numpy().tobytes())


def _read_kitti(path: Path) -> tuple[Tensor, Tensor]:
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 3:
        raise InputError(f"{path}: not a KITTI flow image (16 bit, three channels); give the file as KITTI ships it")
    valid, v, u = (torch.from_numpy(image[..., c].astype(np.float32)) for c in range(3))  # OpenCV returns B, G, R
    known = valid > 0
    flow = torch.stack([(u - 2**15) / 64, (v - 2**15) / 64])
    return torch.where(known, flow, 0.0), known
