"""The output of `clip-retrieval inference`: `img_emb/img_emb_N.npy` has the vectors of `metadata/metadata_N.parquet`.

The rows name pictures, which lie elsewhere. A request may state the embedding space of the vectors: the server takes
them when the statement proves true. Without a statement its model embeds the pictures as it does all others.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from app.core.errors import UrlUnreachable, Validation, map_os_errors
from app.core.files import open_beneath
from app.core.types import SourceSpec
from app.decode.parquet_metadata import list_metadata
from app.decode.sidecars import IGNORED_FIELDS, split_key
from app.decode.task_channel import OutputFile
from app.encoder.protocol import Encoder
from app.sources.base import Source, SourceItem, SourcePolicy, limit_items, with_error
from app.sources.changed import skip_unchanged
from app.sources.embedding_check import ItemSample, embed_files, require_agreement
from app.sources.folder import copy_item
from app.sources.key_index import KeyIndex
from app.sources.local_files import path_to_text, walk_files
from app.sources.npy import NpyMatrix
from app.sources.stop_signal import ShouldStop, raise_if_stopping
from app.sources.webdataset import WebdatasetSource

FINGERPRINT = re.compile(r"[0-9a-f]{16}")
METADATA_FILE = re.compile(r"metadata_(\d{1,9})\.parquet")
NOT_METADATA = frozenset({"image_path", "caption"}) | IGNORED_FIELDS
PICTURE_MISSING = UrlUnreachable(
    "there is no such picture, or the server may not read it; `pictures` names the folder where they are now"
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EmbeddingPart:
    """One table, and the vectors of its rows."""

    table: Path
    vectors: Path


class ClipRetrievalSource(Source):
    """Items with a `path`, or of tars; with a vector they name its `part`, `row`, and the part's tag (`part_at`)."""

    FORM = "clip-retrieval:PATH"
    OPTIONS = frozenset({"embeddings_of", "pictures"})

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._space: str | None = self.spec.options.get("embeddings_of")
        self._matrix: tuple[str, NpyMatrix] | None = None
        self._tars: WebdatasetSource | None = None
        if (place := self.spec.options.get("pictures")) and any(walk_files(Path(place), WebdatasetSource.SUFFIXES)):
            self._tars = WebdatasetSource(SourceSpec("webdataset", place), self.context)

    @classmethod
    def resolve(cls, spec: SourceSpec, policy: SourcePolicy) -> SourceSpec:
        options = dict(spec.options)
        if (space := options.get("embeddings_of")) is not None and not FINGERPRINT.fullmatch(space):
            raise Validation("embeddings_of is the fingerprint of a space: 16 hex digits, as /v1/models shows them")
        if options.get("pictures") is not None:
            options["pictures"] = str(policy.folders.resolve_folder(options["pictures"]))
        return SourceSpec(spec.kind, str(policy.folders.resolve_folder(spec.place)), options)

    def scan(self, folder: Path, collection: str, should_stop: ShouldStop) -> Iterator[SourceItem]:
        """The rows whose pictures are new or have changed; a row whose picture is missing is an item that failed.

        Raises Validation when the folder is no output of clip-retrieval, and, after the last item, when the vectors are
        not of the space that the request states.
        """
        root = self.context.policy.folders.resolve_folder(self.spec.place)
        parts = self._list_parts(root)
        if self._space is not None:
            self._require_space()
        list_items = self._list_tar_items if self._tars is not None else self._list_items
        items = limit_items(list_items(root, parts, folder, should_stop), self.context.policy.max_items)
        sample = ItemSample()
        yield from sample.pass_through(skip_unchanged(self.context.database, collection, items, should_stop))
        if self._space is not None and sample.items:
            self._require_true_vectors(sample.items, folder)

    def _list_parts(self, root: Path) -> list[EmbeddingPart]:
        folder = self.context.policy.folders.resolve_folder(str(root / "metadata"))
        numbers = sorted((int(m[1]), m[1]) for path in folder.iterdir() if (m := METADATA_FILE.fullmatch(path.name)))
        if not numbers:
            raise Validation("there is no metadata/metadata_N.parquet: this is no output of clip-retrieval inference")
        return [
            EmbeddingPart(folder / f"metadata_{n}.parquet", root / "img_emb" / f"img_emb_{n}.npy") for _, n in numbers
        ]

    @property
    def _encoder(self) -> Encoder:
        assert self.context.encoder is not None
        return self.context.encoder

    def _require_space(self) -> None:
        """Raise Validation unless the request states the space of the server's model."""
        space = self._encoder.space
        if self._space != space.fingerprint:
            raise Validation(wrong_space_detail(str(self._space), space.model, space.fingerprint))

    def _list_items(
        self, root: Path, parts: Sequence[EmbeddingPart], folder: Path, should_stop: ShouldStop
    ) -> Iterator[SourceItem]:
        pictures = self.spec.options.get("pictures")
        folders = self.context.policy.folders
        finder = PictureFinder(Path(pictures or root.parent), folders.find_tag, moved="pictures" in self.spec.options)
        for row, vector in self._read_rows(parts, folder, should_stop):
            yield {**parse_row(row, finder), **vector}

    def _list_tar_items(
        self, root: Path, parts: Sequence[EmbeddingPart], folder: Path, should_stop: ShouldStop
    ) -> Iterator[SourceItem]:
        """The pictures of tars: a row names the key of a sample, whose caption and facts are in the tar, too."""
        assert self._tars is not None
        starts: list[tuple[int, SourceItem]] = []  # the first row of each part, and what items say of the part

        def read_keys() -> Iterator[str]:
            for n, (row, vector) in enumerate(self._read_rows(parts, folder, should_stop)):
                if vector and vector["row"] == 0:
                    starts.append((n, vector))
                yield str(row.get("image_path"))

        rows = KeyIndex(read_keys())
        for item in self._tars.list_items(folder, should_stop):
            n = rows.find_row(split_key(item["name"].partition("/")[2])[0])
            if n is None or not starts or "error" in item:
                yield item
                continue
            first, vector = starts[bisect(starts, n, key=itemgetter(0)) - 1]
            yield {**item, **vector, "row": n - first}
        if unfound := rows.count_unfound():
            yield with_error({"name": "metadata"}, UrlUnreachable(f"{unfound:,} rows name no picture of the tars"))

    def _read_rows(
        self, parts: Sequence[EmbeddingPart], folder: Path, should_stop: ShouldStop
    ) -> Iterator[tuple[Row, SourceItem]]:
        """The rows of the tables, each with what its item says of its vector."""
        out = folder / "rows"
        max_rows = self.context.policy.max_items + 1
        for part in parts:
            raise_if_stopping(should_stop)
            count = self.context.run_in_child(should_stop, list_metadata, part.table, OutputFile(out), max_rows)
            tag = None if self._space is None else self._require_shape(part, count)
            with map_os_errors(), open_beneath(folder, out.name) as lines:
                for n, line in enumerate(lines):
                    vector = {} if tag is None else {"part": str(part.vectors), "row": n, "part_at": tag}
                    yield json.loads(line), vector
        out.unlink(missing_ok=True)

    def _require_shape(self, part: EmbeddingPart, rows: int) -> str:
        """The tag of a part's vectors. Raises Validation unless they fit its table and the model."""
        matrix = self._open_matrix(str(part.vectors))
        width = self._encoder.space.d
        if matrix.n != rows:
            raise Validation(f"{matrix.name} has {matrix.n} vectors, but {part.table.name} has {rows} rows")
        if matrix.d != width:
            raise Validation(f"{matrix.name} has vectors of width {matrix.d}, but the model's have {width}")
        return matrix.tag

    def _require_true_vectors(self, items: Sequence[SourceItem], folder: Path) -> None:
        """Raise Validation unless the model makes the vectors of these items from their pictures."""
        assert self.context.pool is not None
        target = folder / "trial"
        target.mkdir(exist_ok=True)
        pairs = [
            (vector, target / str(n))
            for n, item in enumerate(items)
            if "error" not in self._copy(item, target / str(n)) and (vector := self._read_vector(item)) is not None
        ]
        made = embed_files(self._encoder, self.context.pool, [path for _, path in pairs])
        require_agreement([vector for vector, _ in pairs], made, self._format_refusal)

    def _format_refusal(self, reason: str) -> str:
        remedy = "leave embeddings_of out to embed the pictures"
        return f"the server does not take these as embeddings of {self._space}: {reason}; {remedy}"

    def fetch(self, target: Path, items: Sequence[SourceItem], should_stop: ShouldStop) -> list[SourceItem]:
        """Copy the pictures, each with its vector; an item without a usable vector gets none, and is embedded."""
        return [self._with_vector(self._copy(item, target / str(n))) for n, item in enumerate(items)]

    def _copy(self, item: SourceItem, target: Path) -> SourceItem:
        if self._tars is not None and "tar" in item:
            return self._tars.copy_item(item, target)
        return copy_item(item, target, self.context.policy)

    def _with_vector(self, item: SourceItem) -> SourceItem:
        if "error" in item or "part" not in item:
            return item
        try:
            vector = self._read_vector(item)
        except Validation as error:
            return with_error(item, error)
        return item if vector is None else {**item, "given": (str(self._space), vector.astype("<f4").tobytes())}

    def _read_vector(self, item: SourceItem) -> np.ndarray[Any, np.dtype[np.float32]] | None:
        matrix = self._open_matrix(item["part"])
        if matrix.tag != item["part_at"]:
            raise Validation(f"{matrix.name} was changed after it was listed")
        return matrix.row(item["row"])

    def _open_matrix(self, path: str) -> NpyMatrix:
        """Open the vectors of a part, and close those of the part before. Raises Validation."""
        if self._matrix is None or self._matrix[0] != path:
            self._close_matrix()
            file = Path(path)
            folder = self.context.policy.folders.resolve_folder(str(file.parent))  # again: it may be another one now
            self._matrix = path, NpyMatrix(folder / file.name)
        return self._matrix[1]

    def close(self) -> None:
        self._close_matrix()
        if self._tars is not None:
            self._tars.close()

    def _close_matrix(self) -> None:
        if self._matrix is not None:
            self._matrix[1].close()
            self._matrix = None


class PictureFinder:
    """Finds the pictures of rows: at the paths that they name, or below `base`.

    Where the pictures were moved, or the paths start in another folder, the first picture that it finds shows how many
    of the first steps of a path are wrong; it leaves out as many from all paths.
    """

    def __init__(self, base: Path, find_tag: Callable[[Path], str | None], *, moved: bool) -> None:
        self._base = base
        self.find_tag = find_tag
        self._moved = moved
        self._wrong_steps: int | None = None

    def find(self, text: str) -> Path:
        """The path where this picture is, or should be."""
        if text.startswith("/") and not self._moved:
            return Path(text)
        steps = PurePosixPath(text.lstrip("/")).parts
        if self._wrong_steps is None:
            self._wrong_steps = next(
                (n for n in range(len(steps)) if self.find_tag(self._base.joinpath(*steps[n:]))), None
            )
        return self._base.joinpath(*steps[self._wrong_steps or 0 :])


def parse_row(row: Row, finder: PictureFinder) -> SourceItem:
    """The item of a row of a table."""
    text = row.get("image_path")
    if not isinstance(text, str) or not text or "\0" in text or ".." in PurePosixPath(text).parts:
        name = str(text or "?")[:1_000]
        return with_error({"name": name}, Validation("the row names no picture (image_path)"))
    path = finder.find(text)
    tag = finder.find_tag(path)
    item: SourceItem = {"name": text, "path": str(path), "origin": f"file:{path_to_text(path)}", "tag": tag}
    item["metadata"] = {name: value for name, value in row.items() if name not in NOT_METADATA}
    if isinstance(caption := row.get("caption"), str) and caption.strip():
        item["caption"] = caption.strip()
    return item if tag else with_error(item, PICTURE_MISSING)


def wrong_space_detail(stated: str, model: str, fingerprint: str) -> str:
    return (
        f"the request says that the embeddings are of {stated}, but this server's model, {model}, has {fingerprint}:"
        " serve the model that made them and state its fingerprint, or leave embeddings_of out to embed the pictures"
    )
