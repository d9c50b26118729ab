"""The page of ``visviva playground``: `studio` makes and measures clips, `page` shows them, arrows.js draws on the picture."""

from visviva.pipelines.playground.page import run

__all__ = ["run"]
