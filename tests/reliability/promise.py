"""What a proof is made of: a Promise, the Scale it is tried at, and the Outcome."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from tests.reliability import proofs

T = TypeVar("T")


class Impossible(Exception):
    """This machine cannot run the proof: what it lacks. That is no proof, and no failure of the service."""


class Scale(Enum):
    """SHORT is tried at every change, LONG before a release."""

    SHORT = "short"
    LONG = "long"

    def pick(self, short: T, long: T) -> T:
        """The one that belongs to this scale."""
        return short if self is Scale.SHORT else long


@dataclass(frozen=True, slots=True)
class Promise:
    """One line of docs/reliability.md. `beside`: it takes long and little, so that the others run meanwhile."""

    number: int
    name: str
    text: str
    beside: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a proof reached, in one line, and whether the promise held."""

    figure: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """A promise and what tries to break it."""

    promise: Promise
    run: Callable[[Scale], Outcome]


def all_promises() -> list[Promise]:
    """Every promise that has a proof, in order of their numbers."""
    return [proof.promise for proof in all_proofs()]


def all_proofs() -> list[Proof]:
    """Every proof, in order of the promises' numbers."""
    names = [module.name for module in pkgutil.iter_modules(proofs.__path__)]
    return sorted((_load(name) for name in names), key=lambda proof: proof.promise.number)


def load_proof(name: str) -> Proof:
    """The proof of this name. Raises KeyError."""
    return {each.promise.name: each for each in all_proofs()}[name]


def _load(name: str) -> Proof:
    module = importlib.import_module(f"tests.reliability.proofs.{name}")
    return Proof(module.PROMISE, module.run)
