"""The motion diffusion transformer: tokens of ten body parts over time in, the clean motion out (x0-prediction).

After LMM (arXiv 2404.01284): one linear read-in and one zero-initialised linear read-out per data set and per part, layers of
ArtAttention and a feed-forward network, conditions as tokens. The features of every data set are normalised by statistics that
lie in the weights; a feature that is a displacement per frame must be given per 1/20 s whatever the frame rate
(`visviva.data.motions.humanml3d.features(joints, fps)` does): the rate enters only through the frames' times in seconds.

Ours, against the release: time by sinusoids of seconds instead of a learned table of frames (any length, any rate), the mean of
the text's tokens also joins the embedding of diffusion time, neighbouring frames are mixed in every layer (`Nearby`), absent
parts are left out instead of masked by a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from jaxtyping import Bool, Float
from torch import Tensor, nn

from visviva.errors import InputError
from visviva.models.motion.artattention import ArtAttention, Frames, PlainAttention, Stylised
from visviva.models.motion.parts import PARTS, ROTATIONS, Layout, layout

GROUPS = 3
"""Kinds of tokens beside the motion's: text, data set, rotation type."""


@dataclass
class Denoised(BaseOutput):
    """``sample``: the predicted clean features, normalised, (B, T, D); ``balance``: imbalance of the experts (1 is even);
    ``spread``: Kullback-Leibler divergence of the template centres' logits from N(0, 1)."""

    sample: Tensor
    balance: Tensor
    spread: Tensor


class Nearby(nn.Module):
    """What a part does within a fifth of a second before and after (ours): a convolution over time whose taps are in seconds.

    ``y(t) = W [x at t - 0.2 s, ..., t + 0.2 s]``; each tap is the mean of the frames there under a Gaussian in time, so taps do
    not depend on the frame rate, and frames beyond the ends have no weight. ArtAttention alone has nothing local: its templates
    are smooth over the whole motion, and small models leave the frames' phases to chance (jerk 20 to 40 times the data's).
    """

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(len(TAPS) * width, width)
        self.styl = Stylised(width, embedding)

    def forward(self, x: Float[Tensor, "B T H L"], frames: Frames) -> Float[Tensor, "B T H L"]:
        """Return what is added to the residual stream."""
        return self.styl(self.mix(tapped(self.norm(x), frames)), frames.embedding)


TAPS = ((-0.2, 0.1), (-0.08, 0.05), (0.0, 0.05), (0.08, 0.05), (0.2, 0.1))
"""Place and width in time of each tap [s]."""


def tapped(x: Float[Tensor, "B T H L"], frames: Frames) -> Float[Tensor, "B T H M"]:
    """Return the taps' means one after the other, M = taps times L."""
    place, width = x.new_tensor(TAPS, dtype=torch.float32).unbind(1)
    apart = frames.times[:, None, :] - frames.times[:, :, None]  # (B, at, from)
    near = -((apart[:, None] - place[:, None, None]) / width[:, None, None]).square()
    weight = near.masked_fill(~frames.there[:, None, None], -1e6).softmax(-1).to(x)
    found = weight.flatten(1, 2) @ x.flatten(2)  # (B, taps T, H L)
    return found.unflatten(1, (len(TAPS), -1)).unflatten(-1, x.shape[2:]).permute(0, 2, 3, 1, 4).flatten(-2)


class Layer(nn.Module):
    """Attention, neighbouring frames and a feed-forward network, each with a stylised, zero-initialised way into the residual
    stream."""

    def __init__(self, attention: nn.Module, width: int, embedding: int, hidden: int, nearby: bool) -> None:
        super().__init__()
        self.attention = attention
        self.nearby = Nearby(width, embedding) if nearby else None
        self.norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.styl = Stylised(width, embedding)

    def forward(self, x: Tensor, frames: Frames, parts: Sequence[int], further: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the tokens after the layer and what the attention says beside them."""
        x, said = self.attention(x, frames, parts, further)
        if self.nearby is not None:
            x = x + self.nearby(x, frames)
        return x + self.styl(self.feed(self.norm(x)), frames.embedding), said


class MotionTransformer(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The network; see the file's head.

    Args:
        layouts: names of the data sets' feature layouts (`visviva.models.motion.parts`).
        width, layers: of the tokens (L), and how many.
        text_width: of the text encoder's tokens.
        attention: ``art`` or its rival ``plain``.
        templates: per part; None for L. ``sigma``, ``gather``: first widths in time [s] of what they give and take; no gather:
            from all frames alike.
        experts, top: of the mixture in front of the attention.
        hidden: of the feed-forward networks.
        nearby: also mix neighbouring frames in every layer (ours).
        dataset_tokens, rotation_tokens: learned tokens for each data set (and for "any") and each kind of rotations.

    Example::

        network = MotionTransformer(width=32, layers=2, text_width=64)
        found = network(torch.randn(2, 40, 263), torch.tensor([10, 500]), fps=torch.tensor([20.0, 30.0])).sample
    """

    @register_to_config
    def __init__(
        self,
        layouts: Sequence[str] = ("humanml3d",),
        width: int = 64,
        layers: int = 4,
        text_width: int = 64,
        attention: str = "art",
        templates: int | None = None,
        sigma: float = 0.1,
        gather: float | None = None,
        experts: int = 1,
        top: int = 1,
        hidden: int = 256,
        dataset_tokens: int = 8,
        rotation_tokens: int = 4,
        nearby: bool = True,
    ) -> None:
        super().__init__()
        if attention not in ("art", "plain"):
            raise InputError(f"attention = {attention!r}; allowed: art, plain")
        embedding = 4 * width
        self.time = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.text = nn.Linear(text_width, width)
        self.pooled = nn.Linear(text_width, embedding)
        self.no_text = nn.Parameter(torch.zeros(embedding))
        self.second = nn.Linear(2 * SECONDS, width)
        self.part = nn.Parameter(torch.randn(len(PARTS), width) * 0.02)
        self.hidden_token = nn.Parameter(torch.randn(width) * 0.02)
        self.dataset = nn.Parameter(torch.randn(len(layouts) + 1, dataset_tokens, width) * 0.02)
        self.rotation = nn.Parameter(torch.randn(len(ROTATIONS), rotation_tokens, width) * 0.02)
        self.read_in, self.read_out = nn.ModuleDict(), nn.ModuleDict()
        for name in layouts:
            known = layout(name)
            self.read_in[name] = nn.ModuleList(nn.Linear(len(known.columns[p]), width) for p in known.present)
            self.read_out[name] = nn.ModuleList(_zeros(width, len(known.columns[p])) for p in known.present)
            self.register_buffer(f"mean_{name}", torch.zeros(known.size))
            self.register_buffer(f"std_{name}", torch.ones(known.size))
        kinds: dict[str, Any] = {
            "art": lambda: ArtAttention(width, embedding, len(PARTS), templates, GROUPS, experts, top, sigma, gather),
            "plain": lambda: PlainAttention(width, embedding, GROUPS),
        }
        self.blocks = nn.ModuleList(Layer(kinds[attention](), width, embedding, hidden, nearby) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    # ---------------------------------------------------------------------------------------------------- statistics

    def set_statistics(self, mean: Float[Tensor, " D"], std: Float[Tensor, " D"], dataset: str = "humanml3d") -> None:
        """Put in the mean and standard deviation of a data set's features."""
        known = self._layout(dataset)
        if mean.shape != (known.size,) or std.shape != (known.size,) or not bool((std > 0).all()):
            raise InputError(f"statistics of {tuple(mean.shape)}; {known.size} means and positive deviations are wanted")
        self.get_buffer(f"mean_{dataset}").copy_(mean)
        self.get_buffer(f"std_{dataset}").copy_(std)

    def normalised(self, features: Float[Tensor, "*batch D"], dataset: str = "humanml3d") -> Float[Tensor, "*batch D"]:
        """Return features less their mean over their standard deviation."""
        return (features - self.get_buffer(f"mean_{dataset}")) / self.get_buffer(f"std_{dataset}")

    def denormalised(self, sample: Float[Tensor, "*batch D"], dataset: str = "humanml3d") -> Float[Tensor, "*batch D"]:
        """Undo `normalised`."""
        return sample * self.get_buffer(f"std_{dataset}") + self.get_buffer(f"mean_{dataset}")

    def _layout(self, dataset: str) -> Layout:
        if dataset not in self.config["layouts"]:
            raise InputError(f"this network knows no data set {dataset!r}; it knows {', '.join(self.config['layouts'])}")
        return layout(dataset)

    # ------------------------------------------------------------------------------------------------------- forward

    def forward(
        self,
        sample: Float[Tensor, "B T D"],
        timestep: Tensor,
        encoder_hidden_states: Float[Tensor, "B W C"] | None = None,
        encoder_attention_mask: Bool[Tensor, "B W"] | None = None,
        *,
        fps: Float[Tensor, " B"],
        lengths: Tensor | None = None,
        dataset: str = "humanml3d",
        any_dataset: Bool[Tensor, " B"] | None = None,
        parts: Bool[Tensor, "B H"] | None = None,
        masked: Bool[Tensor, "B T H"] | None = None,
        return_dict: bool = True,
    ) -> Denoised | tuple[Tensor]:
        """Return the clean features that are predicted from noisy ones.

        Args:
            sample: normalised features with noise.
            timestep: of diffusion, (B,) or one number.
            encoder_hidden_states, encoder_attention_mask: the text's tokens, and which are there; none: no text.
            fps: frames per second.
            lengths: frames of each motion, (B,); those after them change nothing and come out as 0. None: all.
            dataset: whose layout the features have.
            any_dataset: where the data set is not to be known (training drops it, as LMM).
            parts: which of the ten parts each motion has; None: all of the layout.
            masked: tokens whose content is hidden (training), of the ten parts.

        Raises:
            InputError: an unknown data set, features of another width.
        """
        known = self._layout(dataset)
        if sample.shape[-1] != known.size:
            raise InputError(f"features of {sample.shape[-1]} columns; {dataset!r} has {known.size}")
        present = list(known.present)
        there = torch.ones(len(sample), len(PARTS), dtype=torch.bool, device=sample.device) if parts is None else parts
        embedding = self._embedding(sample, timestep, encoder_hidden_states, encoder_attention_mask)
        frames = _frames(sample, fps, lengths, there[:, present], embedding)
        x = self._read(sample, known, frames, present, masked)
        further = self._further(sample, known, dataset, any_dataset, encoder_hidden_states, encoder_attention_mask)
        said: list[dict[str, Tensor]] = []
        for layer in self.blocks:
            x, one = layer(x, frames, present, further)
            said.append(one)
        found = self._write(self.norm(x), known, frames)
        if not return_dict:
            return (found,)
        none = found.new_zeros(())
        balance = torch.stack([one["balance"].to(none) for one in said if "balance" in one] or [none]).mean()
        spread = torch.stack([_divergence(one["logits"]).to(none) for one in said if "logits" in one] or [none]).mean()
        return Denoised(sample=found, balance=balance, spread=spread)

    def _embedding(self, sample: Tensor, timestep: Tensor, text: Tensor | None, mask: Tensor | None) -> Float[Tensor, "B E"]:
        waved = waves(timestep.expand(len(sample)).float(), self.config["width"], 1e4)
        return self.time(waved.to(sample.dtype)) + self._pooled(text, mask, sample)

    def _pooled(self, text: Tensor | None, mask: Tensor | None, sample: Tensor) -> Tensor:
        if text is None:
            return self.no_text
        there = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device) if mask is None else mask
        mean = (text * there[..., None]).sum(1) / there.sum(1, keepdim=True).clamp(min=1)
        return torch.where(there.any(1)[:, None], self.pooled(mean.to(sample.dtype)), self.no_text)

    def _read(
        self, sample: Tensor, known: Layout, frames: Frames, present: list[int], masked: Tensor | None
    ) -> Float[Tensor, "B T H L"]:
        clean = torch.where(frames.there[..., None], sample, 0.0)
        readers: Any = self.read_in[known.name]
        x = torch.stack([reader(clean[..., list(known.columns[p])]) for p, reader in zip(present, readers, strict=True)], 2)
        absent = ~frames.parts[:, None]
        hidden = absent if masked is None else masked[:, :, present] | absent
        x = torch.where(hidden[..., None], self.hidden_token.to(x), x)
        times = self.second(waves(frames.times, 2 * SECONDS, None).to(x.dtype))
        return x + times[:, :, None] + self.part[present]

    def _further(
        self,
        sample: Tensor,
        known: Layout,
        dataset: str,
        any_dataset: Tensor | None,
        text: Tensor | None,
        mask: Tensor | None,
    ) -> list[tuple[Tensor, Tensor]]:
        batch, width, device = len(sample), self.config["width"], sample.device
        if text is None:
            tokens, there = sample.new_zeros(batch, 1, width), torch.zeros(batch, 1, dtype=torch.bool, device=device)
        else:
            tokens = self.text(text.to(sample.dtype))
            there = torch.ones(text.shape[:2], dtype=torch.bool, device=device) if mask is None else mask
        which = torch.full((batch,), self.config["layouts"].index(dataset), device=device)
        if any_dataset is not None:
            which = torch.where(any_dataset, len(self.config["layouts"]), which)
        learned = (self.dataset[which], self.rotation[ROTATIONS.index(known.rotation)].expand(batch, -1, -1))
        return [(tokens, there), *((x, torch.ones(x.shape[:2], dtype=torch.bool, device=device)) for x in learned)]

    def _write(self, x: Tensor, known: Layout, frames: Frames) -> Float[Tensor, "B T D"]:
        writers: Any = self.read_out[known.name]
        parts = [writer(x[:, :, i]) * frames.parts[:, i, None, None] for i, writer in enumerate(writers)]
        columns = [column for p in known.present for column in known.columns[p]]
        order = torch.empty(known.size, dtype=torch.long, device=x.device)
        order[columns] = torch.arange(known.size, device=x.device)
        found = torch.cat(parts, -1)[..., order]
        return torch.where(frames.there[..., None], found, 0.0)


def _frames(sample: Tensor, fps: Tensor, lengths: Tensor | None, parts: Tensor, embedding: Tensor) -> Frames:
    index = torch.arange(sample.shape[1], device=sample.device)
    lengths = torch.full((len(sample),), sample.shape[1], device=sample.device) if lengths is None else lengths
    return Frames(index < lengths[:, None], parts, index / fps[:, None], lengths / fps, embedding)


SECONDS = 24
"""Frequencies of the embedding of a frame's time."""


def waves(x: Float[Tensor, "*batch"], width: int, slowest: float | None) -> Float[Tensor, "*batch width"]:
    """Return cosines and sines of x: with ``slowest`` at 1 to ``1 / slowest`` radians per unit, as diffusion time has them;
    without, of seconds, at 1/20 to 8 Hz."""
    half = width // 2
    share = torch.arange(half, device=x.device, dtype=torch.float32) / max(half - 1, 1)
    rate = 2 * math.pi * 0.05 * 160**share if slowest is None else (-math.log(slowest) * share).exp()
    angle = x[..., None].float() * rate
    return torch.cat((angle.cos(), angle.sin()), -1)


def _zeros(width: int, out: int) -> nn.Linear:
    linear = nn.Linear(width, out)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _divergence(logits: Tensor) -> Tensor:
    """Kullback-Leibler divergence from N(0, 1) of a Gaussian with the logits' mean and variance over the templates."""
    mean, variance = logits.float().mean(-1), logits.float().var(-1, correction=0).clamp(min=1e-6)
    return 0.5 * (variance + mean.square() - 1 - variance.log()).mean()
