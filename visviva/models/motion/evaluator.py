"""Text and motion in one space: the evaluator that FID, R-precision, MM-Dist, Diversity and MultiModality need.

A text encoder and a motion encoder, trained together so that a motion lies nearest to its text (as the evaluator of Guo et al.,
CVPR 2022, with a symmetric InfoNCE loss, van den Oord et al. 2018, for its margin loss). All embeddings have length one, so
Euclidean and cosine order agree. Numbers from it belong to its name: those of one evaluator say nothing about another's.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from visviva.errors import InputError

FEATURES = 263
FPS = 20.0
LEAST = 8
"""Frames that a motion needs."""


def pieces(text: str, buckets: int) -> list[list[int]]:
    """Return, for each word of a text, the numbers of its letter triples and of itself, by a hash: nothing is unknown.

    >>> [len(word) for word in pieces("A man", 512)]
    [2, 4]
    """
    found = []
    for word in re.findall(r"[a-z]+|\d+", text.lower()):
        marked = f"<{word}>"
        parts = [marked, *(marked[k : k + 3] for k in range(len(marked) - 2))]
        found.append([1 + zlib.crc32(part.encode()) % (buckets - 1) for part in parts])
    return found


class HashedText(nn.Module):
    """A text encoder without a vocabulary: words are means of hashed letter triples (fastText, Bojanowski et al. 2017), and one
    transformer layer reads them in order.

    Args:
        dim: of the embedding; ``width``: of a word; ``buckets``: of the hash; ``length``: words that are read.
    """

    def __init__(self, dim: int, width: int = 64, buckets: int = 768, length: int = 32) -> None:
        super().__init__()
        self.buckets, self.length = buckets, length
        self.embed = nn.EmbeddingBag(buckets, width, mode="mean", padding_idx=0)
        self.place = nn.Parameter(0.02 * torch.randn(length + 1, width))
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))

    def forward(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Return the embeddings of texts, not of length one."""
        rows = [pieces(text, self.buckets)[: self.length] for text in texts]
        longest, parts = max(1, *map(len, rows)), max(1, *(len(word) for row in rows for word in row or [[]]))
        index = torch.zeros(len(rows), longest, parts, dtype=torch.long)
        for i, row in enumerate(rows):
            for j, word in enumerate(row):
                index[i, j, : len(word)] = torch.tensor(word)
        index = index.to(self.place.device)
        words = self.embed(index.flatten(0, 1)).unflatten(0, index.shape[:2]) + self.place[1 : longest + 1]
        hidden = functional.pad((index == 0).all(-1), (1, 0), value=False)
        read = self.layer(torch.cat([self.place[:1].expand(len(rows), 1, -1), words], 1), src_key_padding_mask=hidden)
        return self.out(read[:, 0])


class MotionEncoder(nn.Module):
    """HumanML3D features to one embedding: three convolutions, each halving the frames, then mean and maximum over time."""

    def __init__(self, dim: int, width: int = 96) -> None:
        super().__init__()
        self.read = nn.Linear(FEATURES, width)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 5, stride=2, padding=2) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.out = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, dim))

    def forward(self, features: Float[Tensor, "B T 263"], there: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """Return the embeddings of normalised features, of which frames that are not there do not matter."""
        x = self.read(features.masked_fill(~there[..., None], 0.0)).masked_fill(~there[..., None], 0.0)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            there = there[:, ::2]
            x = functional.gelu(norm(convolution(x.mT).mT)).masked_fill(~there[..., None], 0.0)
        mean = x.sum(1) / there.sum(1, keepdim=True)
        highest = x.masked_fill(~there[..., None], -torch.inf).amax(1)
        return self.out(torch.cat([mean, highest], -1))


class MotionEvaluator(nn.Module):
    """Embeds texts and motions; `visviva.eval.motion.text` makes metrics of the embeddings.

    Args:
        dim: of the embeddings; ``width``: of the motion encoder.
        text: another text encoder, which maps a list of texts to (B, dim); None: `HashedText`.
        name: which evaluator this is, to be told with every number.

    Example::

        evaluator = MotionEvaluator.load()
        text, motion = evaluator.texts(captions), evaluator.motions(features(joints))
        r_precision(text, motion), fid(motion, evaluator.motions(real))
    """

    def __init__(self, dim: int = 64, width: int = 96, text: nn.Module | None = None, name: str = "untrained") -> None:
        super().__init__()
        self.dim, self.width, self.name = dim, width, name
        self.text = HashedText(dim) if text is None else text
        self.motion = MotionEncoder(dim, width)
        self.sharp = nn.Parameter(torch.tensor(2.0))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("std", torch.ones(FEATURES))

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Return the embeddings of texts, of length one."""
        if not texts:
            raise InputError("no texts to embed; give at least one")
        return functional.normalize(self.text(list(texts)), dim=-1)

    def motions(self, features: Float[Tensor, "B T F"], lengths: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B D"]:
        """Return the embeddings of motions, of length one.

        Args:
            features: HumanML3D's, not normalised, at 20 frames/s (`visviva.data.motions.humanml3d.features`).
            lengths: frames of each motion; what is beyond is not looked at. None: all.

        Raises:
            InputError: other than 263 columns, fewer than 8 frames, values that are not finite.
        """
        if features.ndim != 3 or features.shape[-1] != FEATURES:
            raise InputError(f"features of the shape {tuple(features.shape)}; (clips, frames, 263) is wanted")
        count = features.shape[1]
        lengths = torch.full((len(features),), count, device=features.device) if lengths is None else lengths
        if lengths.shape != features.shape[:1] or not bool(((lengths >= LEAST) & (lengths <= count)).all()):
            raise InputError(f"lengths {lengths.tolist()[:8]} of motions of {count} frames; from {LEAST} to {count} is wanted")
        there = torch.arange(count, device=features.device) < lengths[:, None]
        if not bool(features.isfinite().all(-1)[there].all()):
            raise InputError("features that are not finite; leave such motions out and say how many")
        return functional.normalize(self.motion((features - self.mean) / self.std, there), dim=-1)

    def save(self, path: str | Path) -> None:
        """Write the weights and what is needed to read them again to a safetensors file; only with `HashedText`."""
        if not isinstance(self.text, HashedText):
            raise InputError("an evaluator with another text encoder is not saved: keep that encoder and this state_dict()")
        about = {"dim": self.dim, "width": self.width, "name": self.name}
        save_file(
            {k: v.contiguous() for k, v in self.state_dict().items()}, str(path), metadata={"evaluator": json.dumps(about)}
        )

    @classmethod
    def load(cls, path: str | Path | None = None) -> MotionEvaluator:
        """Read an evaluator; None: the shipped one, trained on simulated actions ("visviva-simulated evaluator").

        Raises:
            InputError: no such file, or one that holds no evaluator.
        """
        if path is None:
            path = Path(str(resources.files("visviva.models"))) / "weights" / "motion-evaluator" / "model.safetensors"
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; give the weights of an evaluator, or none for the shipped one")
        try:
            with safe_open(str(path), "pt") as file:
                told = json.loads((file.metadata() or {}).get("evaluator", "{}"))
                weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            network = cls(int(told["dim"]), int(told["width"]), name=str(told["name"]))
            network.load_state_dict(weights)
        except SafetensorError as error:
            raise InputError(f"{path}: not a safetensors file ({error})") from error
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{path}: holds no motion evaluator ({type(error).__name__}); train one again") from error
        return network.eval()


def contrast(
    text: Float[Tensor, "B D"],
    motion: Float[Tensor, "B D"],
    spoilt: Float[Tensor, "S D"],
    alike: Bool[Tensor, "B B"],
    sharp: Tensor,
) -> Float[Tensor, ""]:
    """Return the symmetric InfoNCE loss.

    Args:
        spoilt: motions that are wrong answers to every text.
        alike: pairs with the same text, word for word; they answer each other equally.
        sharp: logarithm of the scale of the cosines.
    """
    scale = sharp.exp().clamp(max=50.0)
    right = alike.to(text) / alike.sum(1, keepdim=True)
    answers = scale * text @ torch.cat([motion, spoilt]).mT
    forward = functional.cross_entropy(answers, functional.pad(right, (0, len(spoilt))))
    return (forward + functional.cross_entropy(scale * motion @ text.mT, right)) / 2
