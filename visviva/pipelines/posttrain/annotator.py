"""Who tells which physics a clip shows, and where: the data themselves, or anything that can be called.

An annotator has a ``name``, the ``phenomena`` it knows, and is called with an `Example` (frames, masks, caption and metadata at
the recipe's size); it returns an `Annotation`. A vision-language model takes the place of the simulator's labels and masks so::

    class Asked:
        name, phenomena = "qwen", ("collision", "flow", "melting")

        def __call__(self, clip):
            answer = ask(clip.frames, self.phenomena)           # (K,), and its attention over the clip, less a background's
            return Annotation(answer.present, (answer.attention > 0).float())

    run(recipe, annotator=Asked())

Each clip is annotated once and kept in the cache under the annotator's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from visviva.errors import InputError
from visviva.models.experts import Annotation
from visviva.pipelines.posttrain.examples import Example, Examples


@runtime_checkable
class Annotator(Protocol):
    """A callable that tells which of its ``phenomena`` a clip shows, and where."""

    @property
    def name(self) -> str:
        """What its answers are kept under: another name for another model or prompt."""

    @property
    def phenomena(self) -> Sequence[str]:
        """Names of what it can tell, in the order of its answers."""

    def __call__(self, clip: Example) -> Annotation:
        """Return what the clip shows."""


class FromData:
    """The data's own labels (a field of their rows) and masks: every object of a clip shows what the clip is labelled with.

    Args:
        examples: the training clips; ``field``: of their rows, with one name or a list of names.
        masks: whether maps are needed.

    Raises:
        InputError: a row without label, labels that are the same everywhere, or clips without masks.

    Example::

        annotator = FromData(examples, "primitive", masks=True)
        annotator.phenomena                        # ("free_fall", "ramp_down", ...)
    """

    def __init__(self, examples: Examples, field: str, masks: bool) -> None:
        self.field, self.masks = field, masks
        self.name = f"data: {field}"
        rows = examples.clips.rows if examples.paired else []
        self.phenomena = tuple(sorted({name for row in rows for name in self._names(row)}))
        if len(self.phenomena) < 2:
            raise InputError(
                f"experts.align has nothing to tell apart: all clips have {field} {list(self.phenomena)}; train on clips of "
                "several phenomena (visviva simulate --primitives ...)"
            )
        bare = examples.without_masks() if masks else None
        if bare is not None:
            raise InputError(
                f"experts.align.refinement needs to know where each object is, but the clip {str(bare)!r} has no masks; "
                "simulate with arrays: small or all, write masks beside the clip, give an annotator of your own, or set it to 0"
            )

    def __call__(self, clip: Example) -> Annotation:
        """Return the labels of the clip's row, and its objects' masks for each of them."""
        names = self._names(clip.row)
        labels = torch.tensor([float(name in names) for name in self.phenomena])
        if clip.masks is None or not self.masks:
            return Annotation(labels)
        objects = clip.masks.any(1, keepdim=True).float()
        return Annotation(labels, objects * (labels > 0)[None, :, None, None])

    def _names(self, row: Any) -> list[str]:
        given = row.get(self.field)
        names = given if isinstance(given, list) else [given]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise InputError(
                f"clip {row.get('file_name')}: {self.field} is {given!r}, but experts.align needs the name of what each clip "
                "shows, or a list of names; visviva simulate writes 'primitive'; set experts.labels to the field that has it, "
                "or experts.align's weights to 0"
            )
        return names
