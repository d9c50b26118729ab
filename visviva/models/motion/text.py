"""From text to tokens: a small word encoder that is trained with the motion model and ships with it, or CLIP and T5.

Both give tokens (B, W, C) and which of them are there (B, W). The word encoder knows the words of its training captions; any
other one is ``<unk>``, and `WordEncoder.unknown` says which, so that nobody takes a wave for a dance that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from torch import Tensor, nn

from visviva.errors import InputError

PAD, UNKNOWN = 0, 1
SUFFIXES = ("ing", "ed", "es", "s")
"""Endings that are tried off a word that is not known as it is."""


def words(text: str) -> list[str]:
    """Return the lower-case words, numbers and marks of a text.

    >>> words("A person jumps 2 m.")
    ['a', 'person', 'jumps', '2', 'm', '.']
    """
    return re.findall(r"[a-z]+|\d|[^\sa-z\d]", text.lower())


def vocabulary(captions: Iterable[str]) -> list[str]:
    """Return the words of captions in the order of the alphabet, for `WordEncoder`."""
    return sorted({word for caption in captions for word in words(caption)})


class WordEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Whole words, one embedding each, and one transformer layer over them.

    Args:
        vocabulary: the known words.
        width: of a token (C).
        length: words and marks of a text that are read; `encode` refuses longer ones.

    Example::

        tokens, there = WordEncoder(["a", "person", "walks"], width=32)(["a person walks"])
    """

    @register_to_config
    def __init__(self, vocabulary: Sequence[str] = (), width: int = 64, length: int = 24) -> None:
        super().__init__()
        self.places = {word: index + 2 for index, word in enumerate(vocabulary)}
        self.embed = nn.Embedding(len(vocabulary) + 2, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(width)

    @property
    def width(self) -> int:
        """Width of a token."""
        return int(self.config["width"])

    def place(self, word: str) -> int:
        """Return the index of a word, or of the word without its ending, or of ``<unk>``."""
        stems = [word, *(word.removesuffix(s) for s in SUFFIXES), *(word + s for s in SUFFIXES)]
        return next((self.places[stem] for stem in stems if stem in self.places), UNKNOWN)

    def unknown(self, prompts: Sequence[str]) -> list[str]:
        """Return the words of the prompts that the encoder does not know, each once."""
        found = [w for prompt in prompts for w in words(prompt) if w[0].isalnum() and self.place(w) == UNKNOWN]
        return list(dict.fromkeys(found))

    def forward(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "B W C"], Bool[Tensor, "B W"]]:
        """Return tokens and which are there; an empty text has none (one padded place)."""
        rows = [[self.place(word) for word in words(prompt)][: self.config["length"]] for prompt in prompts]
        longest = max(1, *(len(row) for row in rows))
        index = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows], device=self.position.device)
        there = index != PAD
        x = self.embed(index) + self.position[:longest]
        hidden = ~there
        hidden[:, 0] = False  # a row of which all is hidden would be NaN; its tokens are hidden from the motion
        return self.norm(self.layer(x, src_key_padding_mask=hidden)), there


def pretrained(path: str | Path) -> tuple[Any, Any]:
    """Return (text encoder, tokenizer) of a local CLIP or T5 folder in transformers' format; only safetensors are read.

    Raises:
        InputError: no such folder, none of these models, or damaged files.
    """
    from transformers import AutoConfig, AutoTokenizer, CLIPTextModel, T5EncoderModel, UMT5EncoderModel

    if not Path(path).is_dir():
        raise InputError(f"no text encoder at {str(path)!r}; give the folder of a CLIP or T5 model in transformers' format")
    kinds: dict[str, Any] = {
        "clip": CLIPTextModel,
        "clip_text_model": CLIPTextModel,
        "t5": T5EncoderModel,
        "umt5": UMT5EncoderModel,
    }
    try:
        kind = AutoConfig.from_pretrained(path, local_files_only=True).model_type
        if kind not in kinds:
            raise InputError(f"{path}: a text encoder of the kind {kind!r}; known are {', '.join(kinds)}")
        encoder = kinds[kind].from_pretrained(path, use_safetensors=True, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path}: could not be loaded as a text encoder ({said}); copy the model again") from error
    return encoder.requires_grad_(False).eval(), tokenizer


def refuse_long(encoder: Any, tokenizer: Any, prompts: Sequence[str]) -> None:
    """Refuse texts of which the encoder would not read the end.

    Raises:
        InputError: the first text that is too long.
    """
    if tokenizer is None:
        limit, counts = int(encoder.config["length"]), [len(words(prompt)) for prompt in prompts]
    else:
        limit, counts = _limit(tokenizer), [len(row) for row in tokenizer(list(prompts)).input_ids]
    for prompt, count in zip(prompts, counts, strict=True):
        if count > limit:
            what = "words and marks" if tokenizer is None else "tokens"
            raise InputError(f"the text {prompt[:60]!r}... has {count} {what}; this model reads {limit}: say it in fewer")


def _limit(tokenizer: Any) -> int:
    return min(77, int(tokenizer.model_max_length))


def encode(
    encoder: Any, tokenizer: Any, prompts: Sequence[str], cut: bool = False
) -> tuple[Float[Tensor, "B W C"], Bool[Tensor, "B W"]]:
    """Return tokens and which are there, of a `WordEncoder` (no tokenizer) or of CLIP and T5 with theirs.

    Args:
        cut: leave out what is beyond the longest text that the encoder reads (training on captions of any length).

    Raises:
        InputError: a text that is too long, unless it may be cut.
    """
    if not cut:
        refuse_long(encoder, tokenizer, prompts)
    if tokenizer is None:
        return encoder(prompts)
    limit = _limit(tokenizer)
    read = tokenizer(list(prompts), padding=True, truncation=True, max_length=limit, return_tensors="pt").to(encoder.device)
    hidden = encoder(read.input_ids, read.attention_mask).last_hidden_state
    empty = torch.tensor([not prompt.strip() for prompt in prompts], device=hidden.device)
    return hidden, read.attention_mask.bool() & ~empty[:, None]


def width_of(encoder: Any) -> int:
    """Return the width of an encoder's tokens."""
    config = encoder.config
    return int(config.width if isinstance(encoder, WordEncoder) else getattr(config, "d_model", None) or config.hidden_size)
