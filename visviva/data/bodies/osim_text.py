"""Values in the elements of OpenSim files."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree.ElementTree import Element

from visviva.errors import InputError


def numbers(path: Path, element: Element, tag: str, count: int | None, default: list[float] | None = None) -> list[float]:
    """Return the numbers of a child element.

    Args:
        path: of the file, for errors.
        element: whose child it is.
        tag: of the child.
        count: how many numbers there must be; None: any.
        default: what to return where there is no such child; None: it must be there.

    Raises:
        InputError: another count, or words that are no finite numbers.
    """
    text = element.findtext(tag)
    where = f"{path}: <{tag}> of {element.tag} {element.get('name', '')}".rstrip()
    if text is None or (not text.strip() and default is not None):
        if default is None:
            raise InputError(f"{where} is missing")
        return default
    try:
        values = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise InputError(f"{where} is {text.strip()[:60]!r}; numbers are wanted") from None
    if count is not None and len(values) != count:
        raise InputError(f"{where} has {len(values)} numbers; {count} are wanted")
    if not all(math.isfinite(value) for value in values):
        raise InputError(f"{where} is {text.strip()[:60]!r}; finite numbers are wanted")
    return values


def flag(element: Element, tag: str, default: bool = False) -> bool:
    """Return whether a child element says true."""
    text = element.findtext(tag)
    return default if text is None or not text.strip() else text.strip().lower() == "true"
