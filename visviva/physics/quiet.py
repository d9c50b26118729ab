"""Warp without its chatter: what users did not ask for is not printed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

WARNINGS = 30
"""Warp's log level for warnings and worse."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Warp from reporting its start and each kernel that it loads; warnings stay, and the caller's level comes back.

    Example::

        with quiet():
            wp.launch(kernel, dim=n, inputs=inputs)
    """
    import warp as wp

    before = wp.config.log_level
    wp.config.log_level = max(before, WARNINGS)
    try:
        yield
    finally:
        wp.config.log_level = before
