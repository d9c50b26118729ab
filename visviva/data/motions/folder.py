"""Folders in HumanML3D's layout: features, texts, statistics and splits, read and written.

    new_joint_vecs/000021.npy   features (T, 263), 20 frames/s          Mean.npy, Std.npy   of the features, 263 numbers
    new_joints/000021.npy       joints (T, 22, 3) [m], y up             train.txt, ...      names, one a line
    texts/000021.txt            a caption a line: caption#word/TAG word/TAG#from#to, times in seconds, 0.0#0.0 the whole clip

Nothing is unpickled. The data set itself is not part of the package; its terms are its authors'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.files import read_text, whole
from visviva.data.motions.arrays import BROKEN
from visviva.data.motions.axes import upright
from visviva.data.motions.humanml3d import FPS, features, from_features, read_statistics, yawed
from visviva.data.motions.motion import HumanMotion
from visviva.errors import InputError, closest

BLOCKS = (0, 1, 3, 4, 67, 193, 259, 263)
"""Where the kinds of features begin; the standard deviations of a kind are replaced by their mean, as published."""
SHARES = {"train": 0.8, "val": 0.05, "test": 0.15}
"""Splits of a folder that is written."""


@dataclass(frozen=True)
class Caption:
    """What is said of a clip, or of its frames from ``start`` to before ``stop`` (None: to the end); ``tokens`` as tagged."""

    text: str
    tokens: tuple[str, ...] = ()
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Clip:
    """One clip of a folder: features (T, 263) and its captions."""

    name: str
    features: Tensor
    captions: tuple[Caption, ...]

    @property
    def motion(self) -> HumanMotion:
        """The motion that the features hold."""
        return from_features(self.features, self.name)

    def said(self, caption: Caption) -> Float[Tensor, "T 263"]:
        """Return the features that a caption is about."""
        return self.features[caption.start : caption.stop]


class HumanML3DFolder:
    """A folder in HumanML3D's layout; clips are read when they are asked for.

    Args:
        folder: holds ``new_joint_vecs``, ``texts`` and the lists of names.
        split: ``train``, ``val``, ``test``, or another list of names without its ``.txt``.

    Attributes:
        names: of the clips that have features and a text, in the order of the list.
        missing: names of the list that lack either.

    Raises:
        InputError: no such folder or list, a list none of whose clips is there.

    Example::

        folder = HumanML3DFolder("HumanML3D", "test")
        folder[0].captions[0].text, folder[0].features.shape
    """

    def __init__(self, folder: str | Path, split: str = "train") -> None:
        self.folder, self.split = Path(folder), split
        listed = self.folder / f"{split}.txt"
        if not listed.is_file():
            known = sorted(path.stem for path in self.folder.glob("*.txt"))
            raise InputError(
                f"{listed}: no such file{closest(split, known)}; a HumanML3D folder has lists of names (train.txt, test.txt) "
                "beside new_joint_vecs and texts"
            )
        asked = list(dict.fromkeys(line.strip() for line in read_text(listed).splitlines() if line.strip()))
        if any("/" in name or "\\" in name or name.startswith(".") for name in asked):
            raise InputError(f"{listed}: a name leads out of the folder; names are those of files without their suffix")
        self.names = [name for name in asked if self._vectors(name).is_file() and self._texts(name).is_file()]
        self.missing = [name for name in asked if name not in set(self.names)]
        if not self.names:
            raise InputError(f"{listed}: none of its {len(asked)} clips has new_joint_vecs/NAME.npy and texts/NAME.txt")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Clip:
        """Return a clip.

        Raises:
            InputError: damaged or pickled numbers, other than 263 columns, values that are not finite, a text that is none.
        """
        name = self.names[index]
        path = self._vectors(name)
        try:
            values = torch.from_numpy(np.load(path, allow_pickle=False)).float()
        except (*BROKEN, TypeError) as error:
            raise InputError(f"{path}: not a readable .npy of numbers ({type(error).__name__}); copy the file again") from error
        if values.ndim != 2 or values.shape[1] != 263 or not len(values):
            raise InputError(f"{path}: numbers of the shape {tuple(values.shape)}; (frames, 263) is wanted")
        if not bool(values.isfinite().all()):
            raise InputError(f"{path}: features that are not finite; take {name} out of {self.split}.txt")
        return Clip(name, values, read_captions(self._texts(name), len(values)))

    @property
    def statistics(self) -> tuple[Float[Tensor, "263"], Float[Tensor, "263"]]:
        """Mean and standard deviation of the features."""
        return read_statistics(self.folder)

    def _vectors(self, name: str) -> Path:
        return self.folder / "new_joint_vecs" / f"{name}.npy"

    def _texts(self, name: str) -> Path:
        return self.folder / "texts" / f"{name}.txt"


def read_captions(path: str | Path, frames: int) -> tuple[Caption, ...]:
    """Return the captions of a text file; times become frames of a clip of so many.

    Times that are missing or no numbers (the published files hold ``nan``) mean the whole clip, as does 0.0 to 0.0.

    Raises:
        InputError: no caption, times out of order or beyond the clip.
    """
    found = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        text, tagged, start, stop = (*line.split("#"), "", "", "")[:4]
        if not text.strip():
            continue
        begin, end = _seconds(start), _seconds(stop)
        first, last = int(begin * FPS), int(end * FPS)
        if begin == end == 0:
            found.append(Caption(text.strip(), tuple(tagged.split())))
        elif 0 <= first < min(last, frames):
            found.append(Caption(text.strip(), tuple(tagged.split()), first, min(last, frames)))
        else:
            raise InputError(f"{path}, line {number}: from {start} to {stop} s is no part of a clip of {frames / FPS:g} s")
    if not found:
        raise InputError(f"{path}: no caption; each line is caption#word/TAG word/TAG#from#to")
    return tuple(found)


def _seconds(text: str) -> float:
    """A time; 0 where there is none."""
    try:
        value = float(text)
    except ValueError:
        if text.strip():
            raise InputError(f"{text.strip()[:40]!r} is no time in seconds") from None
        return 0.0
    return value if math.isfinite(value) else 0.0


def write_folder(
    folder: str | Path,
    joints: Float[Tensor, "B T 22 3"],
    captions: Sequence[Sequence[str]],
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
) -> list[str]:
    """Write clips in HumanML3D's layout and return their names; statistics are those of the training split.

    Args:
        folder: made where it is missing; files of the same names are replaced.
        joints: 20 frames/s, z up (as `visviva.data.actions.draw` gives them) [m].
        captions: of each clip, one or more.
        shares: of the splits; they take the clips in random order, the last one the rest.
        seed: of that order.

    Raises:
        InputError: other joints, fewer than 3 frames, clips without captions, captions with '#'.

    Example::

        batch = draw(list(ACTIONS) * 10, seed=0)
        write_folder("actions", batch.joints, [[caption] for caption in batch.captions])
    """
    if joints.ndim != 4 or joints.shape[-2:] != (22, 3) or joints.shape[1] < 3 or len(joints) != len(captions):
        raise InputError(
            f"joints {tuple(joints.shape)} and {len(captions)} lists of captions; (clips, frames, 22, 3) is wanted"
        )
    if any(not texts or any("#" in t or "\n" in t or not t.strip() for t in texts) for texts in captions):
        raise InputError("every clip needs captions, of one line and without '#', which separates fields")
    folder, turned = Path(folder), facing(joints @ upright("y").to(joints)).float()
    vectors = features(turned)
    names = [f"{index:06d}" for index in range(len(joints))]
    for name, vector, places, texts in zip(names, vectors, turned, captions, strict=True):
        _save(folder / "new_joint_vecs" / f"{name}.npy", vector)
        _save(folder / "new_joints" / f"{name}.npy", places)
        lines = [f"{text}#{' '.join(f'{word}/OTHER' for word in text.lower().split())}#0.0#0.0\n" for text in texts]
        with whole(folder / "texts" / f"{name}.txt") as part:
            part.write_text("".join(lines), encoding="utf-8")
    splits = _split(len(names), shares or SHARES, seed)
    for split, chosen in {**splits, "all": list(range(len(names)))}.items():
        with whole(folder / f"{split}.txt") as part:
            part.write_text("".join(f"{names[k]}\n" for k in chosen))
    mean, std = statistics_of(vectors[next(iter(splits.values()))])
    _save(folder / "Mean.npy", mean)
    _save(folder / "Std.npy", std)
    return names


def facing(joints: Float[Tensor, "*batch T 22 3"]) -> Float[Tensor, "*batch T 22 3"]:
    """Return motions, y up, turned so that the first frame faces +z above the origin, as features presuppose."""
    first = joints[..., 0, :, :]
    across = first[..., 1, :] - first[..., 2, :] + first[..., 16, :] - first[..., 17, :]
    yaw = torch.atan2(-across[..., 2], across[..., 0])
    ground = joints[..., :1, :1, :] * joints.new_tensor([1.0, 0.0, 1.0])
    return yawed(joints - ground, -yaw[..., None, None].expand(joints.shape[:-1]))


def statistics_of(vectors: Float[Tensor, "*batch 263"]) -> tuple[Float[Tensor, "263"], Float[Tensor, "263"]]:
    """Return mean and standard deviation of features, the latter averaged within each kind of feature (card: motion, 10.3)."""
    flat = vectors.reshape(-1, 263)
    std = flat.std(0, correction=0)
    parts = [std[a:b].mean().expand(b - a) for a, b in pairwise(BLOCKS)]
    return flat.mean(0), torch.cat(parts)


def _split(count: int, shares: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    ends = [0]
    for share in list(shares.values())[:-1]:
        ends.append(min(count, ends[-1] + max(1, round(share * count))))
    ends.append(count)
    return {split: sorted(order[a:b]) for split, (a, b) in zip(shares, pairwise(ends), strict=True)}


def _save(path: Path, values: Tensor) -> None:
    with whole(path) as part:
        np.save(part, values.numpy())
