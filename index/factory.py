"""open_index: the one place that names implementations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from index import snapshot
from index.errors import InvalidSnapshot, SnapshotMissing
from index.flat import FlatIndex
from index.milvus import MilvusIndex
from index.milvus_client import MilvusClient
from index.milvus_collection import collection_name
from index.protocol import Freeze, OpenedIndex
from index.reconcile import Reconciler
from index.sealed_segment import SealedSegment
from index.segmented import SegmentedIndex


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """Which index to open.

    `name` says which one it is among those of an installation (say "default/images"), `space` is the fingerprint of
    the embedding space, `d` the width of its vectors. `folder` holds the snapshots of this one index.
    With `milvus` the vectors are there instead, in a collection named after `owner` (which tells installations apart
    that share a server), `name` and `space`.
    """

    name: str
    space: str
    d: int
    folder: Path
    milvus: MilvusClient | None = None
    owner: str = ""

    @property
    def segment_folder(self) -> Path:
        """Where the sealed segment is."""
        return self.folder / "base"


def open_index(config: IndexConfig, *, last_seq: int | None = None) -> OpenedIndex:
    """The index from its snapshot if that is whole and fits `config`, else an empty one at log entry 0.

    `last_seq` is the last entry of the log: a snapshot ahead of it belongs to another log (say, a database restored
    from a backup) and is refused. A refused snapshot stays on disk until the next save. Raises RemoteUnavailable where
    a Milvus does not answer.
    """
    if config.milvus is not None:
        return _open_milvus(config, config.milvus, last_seq)
    segment, applied_seq, refused = _load(SealedSegment, config.segment_folder, config, last_seq)
    growing: FlatIndex | None = None
    if segment is None:
        growing, applied_seq, also_refused = _load(FlatIndex, config.folder, config, last_seq)
        refused = refused or also_refused
    index = SegmentedIndex(config.d, segment, growing)
    return OpenedIndex(index, applied_seq, refused, _make_freeze(index, config))


def load_sealed_segment(config: IndexConfig) -> SealedSegment:
    """The sealed segment of an index, as it was just built. Raises InvalidSnapshot."""
    segment, _ = snapshot.load(config.segment_folder, SealedSegment, name=config.name, space=config.space, d=config.d)
    return segment


def drop_remote_index(config: IndexConfig, client: MilvusClient) -> None:
    """Remove what Milvus holds of an index. Raises RemoteUnavailable."""
    _milvus_index(config, client).drop()


def _milvus_index(config: IndexConfig, client: MilvusClient) -> MilvusIndex:
    about = f"Sightline, {config.name} of {config.owner}, space {config.space}"
    return MilvusIndex(client, collection_name(f"{config.owner}/{config.name}", config.space), config.d, about)


def _open_milvus(config: IndexConfig, client: MilvusClient, last_seq: int | None) -> OpenedIndex:
    """What Milvus holds is the snapshot; where it cannot be complete, searches wait until it has been compared."""
    index = _milvus_index(config, client)
    checkpoint = index.open()
    applied_seq, refused = checkpoint.seq, None
    if last_seq is not None and checkpoint.seq > last_seq:
        applied_seq, refused = 0, f"applied_seq is {checkpoint.seq}, but the log ends at {last_seq}"
    elif last_seq is not None and abs(index.ntotal - checkpoint.ntotal) > last_seq - checkpoint.seq:
        refused = f"Milvus has {index.ntotal} vectors, of {checkpoint.ntotal} at {checkpoint.seq}"
    index.is_complete = refused is None
    reconciler = Reconciler(index, config.name)
    return OpenedIndex(
        index, applied_seq, refused, lambda seq: lambda: index.write_checkpoint(seq), reconciler.maintain, index.watch
    )


def _load(
    cls: type[snapshot.F], folder: Path, config: IndexConfig, last_seq: int | None
) -> tuple[snapshot.F | None, int, str | None]:
    """What the snapshot in `folder` holds, its last log entry, and why it is refused."""
    try:
        index, manifest = snapshot.load(folder, cls, name=config.name, space=config.space, d=config.d)
    except SnapshotMissing:
        return None, 0, None
    except InvalidSnapshot as error:
        return None, 0, str(error)
    if last_seq is not None and manifest.applied_seq > last_seq:
        return None, 0, f"applied_seq is {manifest.applied_seq}, but the log ends at {last_seq}"
    return index, manifest.applied_seq, None


def _make_freeze(index: SegmentedIndex, config: IndexConfig) -> Freeze:
    def freeze(applied_seq: int) -> Callable[[], None] | None:
        frozen = index.freeze()
        if frozen is None:
            return None

        def save() -> None:
            snapshot.save(config.folder, frozen, name=config.name, space=config.space, applied_seq=applied_seq)

        return save

    return freeze
