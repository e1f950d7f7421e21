"""How work that takes long learns that its worker stops."""

from __future__ import annotations

from collections.abc import Callable

from app.core.errors import Overloaded

ShouldStop = Callable[[], bool]


def never_stop() -> bool:
    return False


def raise_if_stopping(should_stop: ShouldStop) -> None:
    """Raise Overloaded, so that another worker takes the work up, when `should_stop()`."""
    if should_stop():
        raise Overloaded("the worker is stopping")
