"""Judges: a vision-language model, or any function, that answers questions about frames; one interface for all prompt suites.

A judge is called with frames (T, 3, H, W) in [0, 1] and a question, and answers in words. Today's judges are weak at physics
(GPT-4o answers half of PhysBench's questions, people 96 %): read the physical benchmarks that need no judge first.
Answers are read strictly: what cannot be read is counted, and never guessed from a digit inside a sentence.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.eval.benchmarks.encoders import best_device, called


class Judge(Protocol):
    """Answers a question about frames."""

    def __call__(self, frames: Tensor, question: str) -> str:
        """Return the answer to a question about frames (T, 3, H, W) in [0, 1]."""
        ...


class TransformersJudge:
    """A vision-language chat model from a local folder in transformers format (LLaVA, Qwen2-VL, InternVL, ...).

    Frames are handed over as a list of images in one user turn, decoding is greedy. Nothing is downloaded.

    Args:
        path: the folder, with ``config.json``, processor, tokenizer with a chat template, and safetensors.
        device: where it runs; empty: the first GPU where there is one, else the CPU; new_tokens: longest answer.

    Raises:
        InputError: the folder is missing, holds no chat template, or no safetensors.

    Example::

        judge = TransformersJudge("weights/llava-onevision-qwen2-7b")
        judge(uniform(clip.frames, 16), "Does the ball fall? Answer yes or no.")
    """

    def __init__(self, path: str | Path, device: torch.device | str = "", new_tokens: int = 16) -> None:
        folder = Path(path)
        if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
            raise InputError(f"no model in {str(path)!r}; a judge is a local folder with config.json and safetensors")
        from transformers import AutoModelForImageTextToText, AutoProcessor

        local: dict[str, Any] = {"local_files_only": True}
        self.processor: Any = AutoProcessor.from_pretrained(folder, **local)
        if not getattr(self.processor, "chat_template", None):
            raise InputError(f"{folder}: the processor has no chat template, so the model cannot be asked; use a chat model")
        model: Any = AutoModelForImageTextToText.from_pretrained(folder, use_safetensors=True, dtype="auto", **local)
        self.model: Any = model.to(device or best_device()).eval().requires_grad_(False)
        self.name, self.new_tokens = folder.name, new_tokens

    @torch.no_grad()
    def __call__(self, frames: Tensor, question: str) -> str:
        """Return the greedy answer."""
        inputs = self._inputs(frames, question)
        start = inputs["input_ids"].shape[1]
        tokens = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.new_tokens)
        return str(self.processor.batch_decode(tokens[:, start:], skip_special_tokens=True)[0]).strip()

    @torch.no_grad()
    def likelihood(self, frames: Tensor, statement: str) -> float:
        """Return P(yes) / (P(yes) + P(no)) of the first answered token: VQAScore (arXiv 2404.01291) with this model.

        Raises:
            InputError: both words begin with the same token, so that one cannot be told from the other.
        """
        first = [self.processor.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("Yes", "No")]
        if first[0] == first[1]:
            raise InputError(
                f"{self.name}: its tokenizer begins 'Yes' and 'No' with one token; use a model that tells them apart"
            )
        logits = self.model(**self._inputs(frames, f'Does this show "{statement}"? Answer yes or no.')).logits[0, -1].float()
        return float(logits[first].softmax(0)[0])

    def _inputs(self, frames: Tensor, question: str) -> Any:
        from PIL import Image

        pixels = (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        content: list[dict[str, Any]] = [{"type": "image"} for _ in pixels] + [{"type": "text", "text": question}]
        turn = [{"role": "user", "content": content}]
        text = self.processor.apply_chat_template(turn, add_generation_prompt=True)
        inputs = self.processor(text=[text], images=[Image.fromarray(p) for p in pixels], return_tensors="pt")
        return inputs.to(self.model.device, self.model.dtype)


def load(name: str) -> Any:
    """Return a judge from a model's folder or from ``module:function``.

    Raises:
        InputError: neither; the message says what was looked for.
    """
    if Path(name).is_dir():
        return TransformersJudge(name)
    module, _, function = name.partition(":")
    if not function:
        raise InputError(f"no judge {name!r}: give the folder of a vision-language model, or module:function")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"the judge {name!r} cannot be imported ({error}); check the module and that it is on the path"
        ) from error
    if not callable(found):
        raise InputError(f"the judge {name!r} is not callable; give a function (frames, question) -> answer")
    return found


def name(judge: Callable[..., Any]) -> str:
    """Return what a judge is called in results."""
    return called(judge)


def asked(judge: Callable[..., Any], frames: Tensor, question: str) -> str:
    """Return the judge's answer.

    Raises:
        InputError: it answered with something that is no text.
    """
    answer = judge(frames, question)
    if not isinstance(answer, str):
        raise InputError(f"the judge {name(judge)!r} answered {answer!r}; a judge must answer in words, as a str")
    return answer


def uniform(frames: Tensor, count: int) -> Tensor:
    """Return ``count`` frames evenly from first to last (indices truncated; frames repeat in a shorter clip)."""
    index = torch.linspace(0, len(frames) - 1, count, dtype=torch.float64).long()
    return frames[index]


def rating(answer: str, allowed: range) -> int | None:
    """Return the rating that an answer begins with, or None where it begins with none.

    Strict on purpose: published code looks for the first of "zero" ... "5" *anywhere*: it reads 1 in "someone threw 4 balls".

    >>> rating(" 4. The ball falls.", range(1, 6)), rating("I would say 4", range(1, 6)), rating("45", range(1, 6))
    (4, None, None)
    """
    match = re.match(r"\s*(\d+)(?![\d.]*\d)", answer)
    return int(match[1]) if match and int(match[1]) in allowed else None


def yes(answer: str) -> bool | None:
    """Return whether an answer begins with yes (True) or no (False), or None where it begins with neither.

    >>> yes("Yes, it falls."), yes("no"), yes("I do not know")
    (True, False, None)
    """
    match = re.match(r"[\s\"'*]*(yes|no)\b", answer.lower())
    return None if match is None else match[1] == "yes"
