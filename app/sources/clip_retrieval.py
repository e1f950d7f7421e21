"""What `clip-retrieval inference` wrote: `img_emb/img_emb_N.npy`, vectors of the rows of `metadata/metadata_N.parquet`.

The rows name the pictures, which lie elsewhere. Their vectors are taken as they are when it is stated what model made
them, and when that proves true; without a statement the pictures are embedded as any others.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from app.core.errors import UrlUnreachable, Validation, map_os_errors
from app.core.types import SourceSpec
from app.decode import webdataset_sidecars
from app.decode.parquet_metadata import list_metadata
from app.sources import glob
from app.sources.base import ShouldStop, Source, SourceItem, SourcePolicy, limit_items, raise_if_stopping, with_error
from app.sources.changed import skip_unchanged
from app.sources.embedding_check import ItemSample, embed_files, require_agreement
from app.sources.folder import copy_item
from app.sources.key_index import KeyIndex
from app.sources.local_files import file_tag, path_to_text
from app.sources.npy import NpyMatrix
from app.sources.webdataset import SUFFIXES, WebdatasetSource

FINGERPRINT = re.compile(r"[0-9a-f]{16}")
METADATA_FILE = re.compile(r"metadata_(\d{1,9})\.parquet")
ITEM_COLUMNS = frozenset({"image_path", "caption"})
PICTURE_MISSING = UrlUnreachable("there is no such picture; `pictures` names the folder where they lie now")


@dataclass(frozen=True, slots=True)
class EmbeddingPart:
    """One table, and the vectors of its rows."""

    table: Path
    vectors: Path


class ClipRetrievalSource(Source):
    """Lines with a `path`, or of tars; with vectors the `part`, the `row`, and the tag of the part (`part_at`)."""

    FORM = "clip-retrieval:PATH"
    TAKES = frozenset({"embeddings_of", "pictures"})

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._space: str | None = self.asked.options.get("embeddings_of")
        self._matrix: tuple[str, NpyMatrix] | None = None
        self._tars: WebdatasetSource | None = None
        if (place := self.asked.options.get("pictures")) and any(glob.walk_files(Path(place), SUFFIXES)):
            self._tars = WebdatasetSource(SourceSpec("webdataset", place), self.tools)

    @classmethod
    def checked(cls, asked: SourceSpec, allowed: SourcePolicy) -> SourceSpec:
        """The folders without links."""
        options = dict(asked.options)
        if (space := options.get("embeddings_of")) is not None and not FINGERPRINT.fullmatch(space):
            raise Validation("embeddings_of is the fingerprint of a space: 16 hex digits, as /v1/models shows them")
        if options.get("pictures") is not None:
            options["pictures"] = str(allowed.roots.folder(options["pictures"]))
        return SourceSpec(asked.kind, str(allowed.roots.folder(asked.place)), options)

    def scan(self, folder: Path, collection: str, stopping: ShouldStop) -> Iterator[SourceItem]:
        """The rows whose pictures are new or have changed; one whose picture is not there is a line that failed.

        Raises Validation when the folder is none of clip-retrieval's, and, after the last line, when the vectors are
        not those of the space that was stated.
        """
        root = self.tools.allowed.roots.folder(self.asked.place)
        parts = self._parts(root)
        if self._space is not None:
            self._require_space()
        listed = self._listed_in_tars if self._tars is not None else self._listed
        found = limit_items(listed(root, parts, folder, stopping), self.tools.allowed.most_items)
        sample = ItemSample()
        yield from sample.passing(skip_unchanged(self.tools.database, collection, found, stopping))
        if self._space is not None and sample.lines:
            self._try(sample.lines, folder)

    def _parts(self, root: Path) -> list[EmbeddingPart]:
        folder = self.tools.allowed.roots.folder(str(root / "metadata"))
        numbers = sorted((int(m[1]), m[1]) for path in folder.iterdir() if (m := METADATA_FILE.fullmatch(path.name)))
        if not numbers:
            raise Validation("there is no metadata/metadata_N.parquet: this is no output of clip-retrieval inference")
        return [
            EmbeddingPart(folder / f"metadata_{n}.parquet", root / "img_emb" / f"img_emb_{n}.npy") for _, n in numbers
        ]

    def _require_space(self) -> None:
        """Raise Validation unless the vectors are said to be of the space that is in use."""
        encoder = self.tools.encoder
        assert encoder is not None
        if self._space != encoder.space.fingerprint:
            raise Validation(wrong_space_detail(str(self._space), encoder.space.model, encoder.space.fingerprint))

    def _listed(
        self, root: Path, parts: Sequence[EmbeddingPart], folder: Path, stopping: ShouldStop
    ) -> Iterator[SourceItem]:
        finder = PictureFinder(
            Path(self.asked.options.get("pictures") or root.parent), moved="pictures" in self.asked.options
        )
        for row, vector in self._rows(parts, folder, stopping):
            yield {**parse_row(row, finder), **vector}

    def _listed_in_tars(
        self, root: Path, parts: Sequence[EmbeddingPart], folder: Path, stopping: ShouldStop
    ) -> Iterator[SourceItem]:
        """The pictures of tars: a row names the key of a sample, whose captions and facts stand in the tar, too."""
        assert self._tars is not None
        vectors: list[tuple[int, SourceItem]] = []  # the first row of each part, and what a line says of the part

        def keys() -> Iterator[str]:
            for n, (row, vector) in enumerate(self._rows(parts, folder, stopping)):
                if vector and vector["row"] == 0:
                    vectors.append((n, vector))
                yield str(row.get("image_path"))

        rows = KeyIndex(keys())
        for line in self._tars.listed(folder, stopping):
            n = rows.row(webdataset_sidecars.split_key(line["name"].partition("/")[2])[0])
            if n is None or not vectors:
                yield line
                continue
            first, vector = vectors[bisect(vectors, n, key=itemgetter(0)) - 1]
            yield {**line, **vector, "row": n - first} if "error" not in line else line
        if unseen := rows.unseen():
            yield with_error({"name": "metadata"}, UrlUnreachable(f"{unseen:,} rows name no picture of the tars"))

    def _rows(
        self, parts: Sequence[EmbeddingPart], folder: Path, stopping: ShouldStop
    ) -> Iterator[tuple[dict[str, Any], SourceItem]]:
        """The rows of the tables, each with what its line says of its vector."""
        out = folder / "rows"
        for part in parts:
            raise_if_stopping(stopping)
            count = self.tools.read(stopping, list_metadata, part.table, out, self.tools.allowed.most_items + 1)
            at = None if self._space is None else self._fitting(part, count)
            with map_os_errors(), open(out, encoding="ascii") as rows:
                for n, text in enumerate(rows):
                    yield json.loads(text), {} if at is None else {"part": str(part.vectors), "row": n, "part_at": at}
        out.unlink(missing_ok=True)

    def _fitting(self, part: EmbeddingPart, count: int) -> str:
        """The tag of a part's vectors. Raises Validation when they do not fit its table or the model."""
        matrix = self._opened(str(part.vectors))
        encoder = self.tools.encoder
        assert encoder is not None
        if matrix.n != count:
            raise Validation(f"{matrix.name} has {matrix.n} vectors, but {part.table.name} has {count} rows")
        if matrix.d != encoder.space.d:
            raise Validation(f"{matrix.name} has vectors of width {matrix.d}, but the model's have {encoder.space.d}")
        return matrix.tag

    def _try(self, lines: Sequence[SourceItem], folder: Path) -> None:
        """Raise Validation unless the vectors of these lines are what the model makes of their pictures."""
        tools = self.tools
        assert tools.encoder is not None
        assert tools.pool is not None
        target = folder / "trial"
        target.mkdir(exist_ok=True)
        pairs = [
            (vector, target / str(n))
            for n, line in enumerate(lines)
            if "error" not in self._copied(line, target / str(n)) and (vector := self._vector(line)) is not None
        ]
        made = embed_files(tools.encoder, tools.pool, [path for _, path in pairs])
        require_agreement([vector for vector, _ in pairs], made, self._refusal)

    def _refusal(self, reason: str) -> str:
        remedy = "leave embeddings_of out to embed the pictures"
        return f"these are not taken as embeddings of {self._space}: {reason}; {remedy}"

    def bring(self, target: Path, lines: Sequence[SourceItem], stopping: ShouldStop) -> list[SourceItem]:
        """Copy the pictures, each with its vector. One whose vector means nothing is to be embedded."""
        return [self._with_vector(self._copied(line, target / str(n))) for n, line in enumerate(lines)]

    def _copied(self, line: SourceItem, target: Path) -> SourceItem:
        if self._tars is not None and "tar" in line:
            return self._tars.copied(line, target)
        return copy_item(line, target, self.tools.allowed)

    def _with_vector(self, line: SourceItem) -> SourceItem:
        if "error" in line or "part" not in line:
            return line
        try:
            vector = self._vector(line)
        except Validation as error:
            return with_error(line, error)
        return line if vector is None else {**line, "given": (str(self._space), vector.astype("<f4").tobytes())}

    def _vector(self, line: SourceItem) -> np.ndarray[Any, np.dtype[np.float32]] | None:
        matrix = self._opened(line["part"])
        if matrix.tag != line["part_at"]:
            raise Validation(f"{matrix.name} was changed after it was listed")
        return matrix.row(line["row"])

    def _opened(self, path: str) -> NpyMatrix:
        """The vectors of a part; those of the part before are closed. Raises Validation."""
        if self._matrix is None or self._matrix[0] != path:
            self._let_go()
            place = Path(path)
            self.tools.allowed.roots.folder(str(place.parent))  # once more: a link may have come between
            self._matrix = path, NpyMatrix(place)
        return self._matrix[1]

    def close(self) -> None:
        """Close the vectors and the tar."""
        self._let_go()
        if self._tars is not None:
            self._tars.close()

    def _let_go(self) -> None:
        if self._matrix is not None:
            self._matrix[1].close()
            self._matrix = None


class PictureFinder:
    """Where the pictures of the rows lie: as they are named, or below `base`.

    Where they were moved, or are named from another folder, the first that is found tells how many of its first steps
    have changed; the same are left out of every other.
    """

    def __init__(self, base: Path, *, moved: bool) -> None:
        self._base = base
        self._moved = moved
        self._skipped: int | None = None

    def path(self, text: str) -> Path:
        """Where this one lies, or would lie."""
        if text.startswith("/") and not self._moved:
            return Path(text)
        steps = PurePosixPath(text.lstrip("/")).parts
        if self._skipped is None:
            self._skipped = next((n for n in range(len(steps)) if file_tag(self._base.joinpath(*steps[n:]))), None)
        return self._base.joinpath(*steps[self._skipped or 0 :])


def parse_row(row: dict[str, Any], finder: PictureFinder) -> SourceItem:
    """The line of a row of the table."""
    text = row.get("image_path")
    if not isinstance(text, str) or not text or "\0" in text or ".." in PurePosixPath(text).parts:
        return with_error({"name": str(text or "?")[:1_000]}, Validation("the row names no picture (image_path)"))
    path = finder.path(text)
    found = file_tag(path)
    line: SourceItem = {"name": text, "path": str(path), "origin": f"file:{path_to_text(path)}", "tag": found}
    line["metadata"] = {
        name: value for name, value in row.items() if name not in ITEM_COLUMNS | webdataset_sidecars.IGNORED_FIELDS
    }
    if isinstance(caption := row.get("caption"), str) and caption.strip():
        line["caption"] = caption.strip()
    return line if found else with_error(line, PICTURE_MISSING)


def wrong_space_detail(stated: str, model: str, fingerprint: str) -> str:
    """What to say to somebody who states another space than the server's."""
    return (
        f"the embeddings are said to be of {stated}, but this server's model, {model}, has {fingerprint}: serve the"
        " model that made them and state its fingerprint, or leave embeddings_of out to embed the pictures"
    )
