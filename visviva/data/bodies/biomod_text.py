"""Words of biorbd's model files: blocks of them, numbers, and what numbers may be computed from."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from visviva.data.bodies.bounded import read_bounded
from visviva.errors import InputError

LONGEST = 200
"""Longest expression that is computed [characters]."""
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
EXPRESSION = re.compile(r"([-+*/().]|\d|(?<=[\d.])e|pi|\$\w+)+", re.IGNORECASE)
VARIABLE = re.compile(r"\$\w+")
LIKE_NUMBER = re.compile(r"[-+.(\d$]|pi\b", re.IGNORECASE)
COMMENT = re.compile(r"(?<!\S)(?://[^\n]*|/\*.*?(?:\*/|\Z))", re.DOTALL)
BETWEEN: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
BEFORE: dict[type[ast.unaryop], Callable[[float], float]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
"""Signs of expressions, between two numbers and before one."""


class Words:
    """The words of a file, one after another.

    Attributes:
        path: of the file.
        block: what is being read, for errors.
        variables: numbers that words such as ``$length`` stand for.
        ignored: how often something was left out, by its kind.

    Example::

        words = Words(Path("model.bioMod"))
        words.next()  # "version"
        words.numbers(1)  # [4.0]
    """

    def __init__(self, path: Path) -> None:
        self.path, self.block = path, "the file"
        self.variables: dict[str, float] = {}
        self.ignored: Counter[str] = Counter()
        self.words, self.at = COMMENT.sub(self._comment, _text(path)).split(), 0
        self.ends = {word.lower() for word in self.words if word.lower().startswith("end")}

    def _comment(self, found: re.Match[str]) -> str:
        if found.group().startswith("/*") and not found.group().endswith("*/"):
            raise InputError(f"{self.path}: a comment that begins with /* has no end; close it with */")
        return " "

    def __bool__(self) -> bool:
        return self.at < len(self.words)

    def next(self) -> str:
        """Return the next word."""
        if not self:
            raise InputError(f"{self.path}: ends within {self.block}")
        self.at += 1
        return self.words[self.at - 1]

    def numbers(self, count: int) -> list[float]:
        """Return the next numbers: plain ones, or sums and products of them, of pi and of variables."""
        return [self.value(self.next()) for _ in range(count)]

    def skip(self, ends: Collection[str]) -> None:
        """Go on after the first of some words."""
        if not self.ends & set(ends):
            raise InputError(
                f"{self.path}: {self.block!r} is not understood: there is no {' or '.join(map(repr, ends))} after it"
            )
        while self.next().lower() not in ends:
            pass

    def skip_numbers(self) -> None:
        """Go on after what looks like numbers."""
        while self and LIKE_NUMBER.match(self.words[self.at]):
            self.at += 1

    def value(self, word: str) -> float:
        """Return what a word stands for.

        Raises:
            InputError: no number, an unknown variable, a division by zero, a result that is not finite.
        """
        try:
            result = float(word) if NUMBER.fullmatch(word) else self._computed(word)
        except (InputError, SyntaxError, ZeroDivisionError, OverflowError) as error:
            why = error.msg if isinstance(error, SyntaxError) else error
            raise InputError(f"{self.path}: {word[:60]!r} in {self.block} where a number is wanted ({why})") from None
        if not math.isfinite(result):
            raise InputError(f"{self.path}: {word[:60]!r} in {self.block} where a finite number is wanted")
        return result

    def _computed(self, word: str) -> float:
        if len(word) > LONGEST:
            raise InputError(f"longer than {LONGEST} characters")
        if not EXPRESSION.fullmatch(word):
            raise InputError("numbers, pi, variables with a $, + - * / and brackets make one")
        unknown = [name for name in VARIABLE.findall(word) if name not in self.variables]
        if unknown:
            raise InputError(f"no variable {unknown[0]}")
        plain = VARIABLE.sub(lambda name: f"({self.variables[name.group()]!r})", word)
        return _value(ast.parse(plain, mode="eval").body)


def _text(path: Path) -> str:
    """The text of a file, with line ends of any system."""
    try:
        return read_bounded(path).decode().replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no text, but a .bioMod file is ({error.reason} at byte {error.start})") from error


def _value(node: ast.expr) -> float:
    """The value of an expression of numbers, pi, signs and brackets."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value)
    if isinstance(node, ast.Name) and node.id.lower() == "pi":
        return math.pi
    if isinstance(node, ast.BinOp) and type(node.op) in BETWEEN:
        return BETWEEN[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in BEFORE:
        return BEFORE[type(node.op)](_value(node.operand))
    raise InputError(f"{ast.unparse(node)} is no sum or product of numbers")
