"""The checker that tests put on every function of the package: beartype, where an int is also a float (PEP 484)."""

import ast

import jaxtyping._import_hook as hook
from beartype import BeartypeConf, beartype

typed = beartype(conf=BeartypeConf(is_pep484_tower=True))

_untyped = hook._is_no_type_check


def _is_kernel(decorator: ast.AST) -> bool:
    """Warp compiles the source of its kernels: their annotations are its own, and nothing may stand around them."""
    return _untyped(decorator) or ast.unparse(decorator).startswith(("wp.kernel", "wp.func"))


hook._is_no_type_check = _is_kernel
