"""open_index: the one place that names implementations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from index import snapshot
from index.errors import InvalidSnapshot, SnapshotMissing
from index.flat import FlatIndex
from index.follower import Maintain
from index.milvus import MilvusIndex
from index.milvus_client import MilvusAddress, MilvusClient
from index.milvus_collection import collection_name
from index.protocol import FrozenIndex, VectorIndex
from index.reconcile import Reconciler
from index.sealed_segment import SealedSegment
from index.segmented import SegmentedIndex
from index.types import SnapshotManifest

KINDS = ("exact", "live")

Freeze = Callable[[int], Callable[[], None] | None]
"""Captures the index as it stands after that log entry; returns what saves it, or None where nothing need be saved."""


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """Which index to open.

    `name` says which one it is among those of an installation (say "default/images"), `space` is the
    fingerprint of the embedding space, `d` the width of its vectors. `folder` holds the snapshots of this one
    index; None keeps none. With `engine` the index is there instead, in a collection named after `owner` (which
    tells installations apart that share an engine), `name` and `space`.
    """

    name: str
    space: str
    d: int
    folder: Path | None = None
    kind: str = "exact"
    engine: MilvusClient | None = None
    owner: str = ""

    @property
    def bases(self) -> Path | None:
        """The folder of a live index's base."""
        return self.folder and self.folder / "base"


Opened = TypeVar("Opened", bound=VectorIndex, covariant=True)


@dataclass(frozen=True, slots=True)
class OpenedIndex(Generic[Opened]):
    """An index ready for its follower.

    It holds the log up to `applied_seq`. `refused` says why a snapshot was not used; None where it was, or
    where there was none. `freeze` belongs into the follower: see `Follower`.
    """

    index: Opened
    applied_seq: int
    refused: str | None
    freeze: Freeze | None
    tend: Maintain | None = None


def create_milvus_client(where: str, token: str = "") -> MilvusClient | None:
    """The engine that `where` names, not yet connected; None for "local". Raises ValueError, which says why."""
    return None if where == "local" else MilvusClient(MilvusAddress.parse(where, token))


def open_index(config: IndexConfig, *, head: int | None = None) -> OpenedIndex[VectorIndex]:
    """The index of the snapshot if that is whole and fits `config`, else an empty one at log entry 0.

    `head` is the log's last seq: a snapshot ahead of it is of another log (one restored from a backup, say)
    and refused. A refused snapshot stays on disk until the next save. Raises ValueError for an unknown kind,
    and EngineUnavailable where there is an engine that cannot be asked.
    """
    if config.engine is not None:
        return _open_remote(config, config.engine, head)
    if config.kind not in KINDS:
        raise ValueError(f"index kind {config.kind!r} is unknown, expected one of {sorted(KINDS)}")
    if config.kind == "live":
        return open_segmented(config, head=head)
    exact, applied_seq, refused = _load(FlatIndex, config.folder, config, head)
    exact = exact or FlatIndex(config.d)
    return OpenedIndex(exact, applied_seq, refused, _freezer(exact.freeze, config))


def drop_remote_index(config: IndexConfig, engine: MilvusClient) -> None:
    """Remove what the engine holds of an index. Raises EngineUnavailable."""
    _remote(config, engine).drop()


def _remote(config: IndexConfig, engine: MilvusClient) -> MilvusIndex:
    about = f"Sightline, {config.name} of {config.owner}, space {config.space}"
    return MilvusIndex(engine, collection_name(f"{config.owner}/{config.name}", config.space), config.d, about)


def _open_remote(config: IndexConfig, engine: MilvusClient, head: int | None) -> OpenedIndex[VectorIndex]:
    """What the engine keeps is the snapshot; where it cannot be all, searches wait until it was compared."""
    index = _remote(config, engine)
    kept = index.open()
    applied_seq, refused = kept.seq, None
    if head is not None and kept.seq > head:
        applied_seq, refused = 0, f"applied_seq is {kept.seq}, but the log ends at {head}"
    elif head is not None and abs(index.ntotal - kept.ntotal) > head - kept.seq:
        refused = f"the engine has {index.ntotal} vectors, of {kept.ntotal} at {kept.seq}"
    index.whole = refused is None
    reconciler = Reconciler(index, config.name)
    return OpenedIndex(index, applied_seq, refused, lambda seq: lambda: index.keep(seq), reconciler.tend)


def open_segmented(config: IndexConfig, *, head: int | None = None) -> OpenedIndex[SegmentedIndex]:
    """A live index: with its base if there is one, else with all in its tail as the snapshot has it."""
    base, applied_seq, refused = _load(SealedSegment, config.bases, config, head, later=SealedSegment.later)
    tail: FlatIndex | None = None
    if base is None:
        tail, applied_seq, also = _load(FlatIndex, config.folder, config, head)
        refused = refused or also
    live = SegmentedIndex(config.d, base, tail)
    return OpenedIndex(live, applied_seq, refused, _freezer(live.freeze, config))


def load_sealed_segment(config: IndexConfig) -> tuple[SealedSegment, SnapshotManifest]:
    """The base of a live index, as it was just built. Raises SnapshotInvalid."""
    if config.bases is None:
        raise SnapshotMissing("there is no folder")
    return snapshot.load(
        config.bases, SealedSegment, name=config.name, space=config.space, d=config.d, later=SealedSegment.later
    )


def _load(
    cls: type[snapshot.F],
    folder: Path | None,
    config: IndexConfig,
    head: int | None,
    later: frozenset[str] = frozenset(),
) -> tuple[snapshot.F | None, int, str | None]:
    if folder is None:
        return None, 0, None
    try:
        index, manifest = snapshot.load(folder, cls, name=config.name, space=config.space, d=config.d, later=later)
    except SnapshotMissing:
        return None, 0, None
    except InvalidSnapshot as error:
        return None, 0, str(error)
    if head is not None and manifest.applied_seq > head:
        return None, 0, f"applied_seq is {manifest.applied_seq}, but the log ends at {head}"
    return index, manifest.applied_seq, None


def _freezer(capture: Callable[[], FrozenIndex | None], config: IndexConfig) -> Freeze | None:
    folder = config.folder
    if folder is None:
        return None

    def freeze(applied_seq: int) -> Callable[[], None] | None:
        frozen = capture()
        if frozen is None:
            return None

        def write() -> None:
            snapshot.save(folder, frozen, name=config.name, space=config.space, applied_seq=applied_seq)

        return write

    return freeze
