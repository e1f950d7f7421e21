"""Keeps libraries from importing what they can do without: a start would wait for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hide(name: str) -> Iterator[None]:
    """Let `import name` fail inside the `with`, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
