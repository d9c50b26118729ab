"""XML files from strangers: of a bounded size and depth, without entities."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from visviva.data.bodies.bounded import read_bounded
from visviva.errors import InputError

DEPTH = 200
"""Deepest nesting of elements that is read."""


class _Bounded(ElementTree.TreeBuilder):
    """Builds the tree of a file, and refuses what a description of a body does not need."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.depth = path, 0

    def start(self, tag: str, attrs: dict[str, str]) -> ElementTree.Element:  # type: ignore[override]
        self.depth += 1
        if self.depth > DEPTH:
            raise InputError(f"{self.path}: elements nested more than {DEPTH} deep; this is no description of a body")
        return super().start(tag, attrs)

    def end(self, tag: str) -> ElementTree.Element:
        self.depth -= 1
        return super().end(tag)

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise InputError(f"{self.path}: a document type ({name}) may declare entities; remove the DOCTYPE")


def read_xml(path: str | Path) -> ElementTree.Element:
    """Return the root element of an XML file.

    Raises:
        InputError: a file that cannot be read, of more than 64 MiB, nested more than 200 deep, with a document type (entities),
            or that is no XML.

    Example::

        read_xml("model.osim").find("Model")
    """
    path = Path(path)
    text = read_bounded(path)
    parser = ElementTree.XMLParser(target=_Bounded(path))  # noqa: S314 (document types are refused)
    try:
        parser.feed(re.sub(rb"(</?\w+)::(?=\w)", rb"\1.", text))  # OpenSim writes <HuntCrossleyForce::ContactParameters>
        return parser.close()
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not XML ({error})") from error
