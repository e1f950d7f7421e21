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
from index.types import SnapshotManifest


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


def open_index(
    config: IndexConfig, *, last_seq: int | None = None, has_mark: Callable[[str], bool] = lambda mark: True
) -> OpenedIndex:
    """The index from its snapshot if that is whole and fits `config`, else an empty one at log entry 0.

    `last_seq` is the last entry of the log, and `has_mark` says whether the log has a mark. A snapshot that is ahead of
    the log, or has a mark that the log lacks, belongs to another one (say, a database restored from a backup) and is
    refused. A refused snapshot stays on disk until the next save. Raises RemoteUnavailable where a Milvus does not
    answer.
    """
    if config.milvus is not None:
        return _open_milvus(config, config.milvus, last_seq)

    def find_fault(manifest: SnapshotManifest) -> str | None:
        if last_seq is not None and manifest.applied_seq > last_seq:
            return f"applied_seq is {manifest.applied_seq}, but the log ends at {last_seq}"
        return None if has_mark(manifest.mark) else f"the log does not have its mark at {manifest.applied_seq} any more"

    growing: FlatIndex | None = None
    segment, manifest, refused = _load(SealedSegment, config.segment_folder, config, find_fault)
    if segment is None:
        growing, manifest, also_refused = _load(FlatIndex, config.folder, config, find_fault)
        refused = refused or also_refused
    index = SegmentedIndex(config.d, segment, growing)
    applied_seq, mark = (manifest.applied_seq, manifest.mark) if manifest else (0, "")
    return OpenedIndex(index, applied_seq, refused, _make_freeze(index, config), mark=mark)


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
        index,
        applied_seq,
        refused,
        lambda seq, mark="": lambda: index.write_checkpoint(seq),
        reconciler.maintain,
        index.watch,
    )


def _load(
    cls: type[snapshot.F], folder: Path, config: IndexConfig, find_fault: Callable[[SnapshotManifest], str | None]
) -> tuple[snapshot.F | None, SnapshotManifest | None, str | None]:
    """What the snapshot in `folder` holds, its manifest, and why it is refused."""
    try:
        index, manifest = snapshot.load(folder, cls, name=config.name, space=config.space, d=config.d)
    except SnapshotMissing:
        return None, None, None
    except InvalidSnapshot as error:
        return None, None, str(error)
    if fault := find_fault(manifest):
        return None, None, fault
    return index, manifest, None


def _make_freeze(index: SegmentedIndex, config: IndexConfig) -> Freeze:
    def freeze(applied_seq: int, mark: str = "", /) -> Callable[[], None] | None:
        frozen = index.freeze()
        if frozen is None:
            return None

        def save() -> None:
            snapshot.save(
                config.folder, frozen, name=config.name, space=config.space, applied_seq=applied_seq, mark=mark
            )

        return save

    return freeze
