"""The calls of clip-retrieval's server (`clip_back`), for its `ClipClient` and its page.

A collection is an index. The id of a picture is the key of its row, and that of a text the key's complement (`~key`, a
negative number), so that no two records have one id. Hits are ranked by their cosine alone, as clip-retrieval does it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import apsw
import numpy as np
from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from app.api.admission import PICTURES, QUERY, take_seat
from app.api.dependencies import (
    ALLOWED_COLLECTIONS,
    FetcherDep,
    LibraryDep,
    SearchDep,
    SettingsDep,
    ThreadsDep,
    is_collection_allowed,
    open_incoming_folder,
    validate_collection,
)
from app.api.errors import MAX_NAME_CHARS
from app.api.routes.search import check_pixels, write_picture
from app.api.schemas.fields import MAX_CHARS, MAX_NUMBERS, MAX_PICTURE_CHARS, UnicodeText, example
from app.api.wires.route import WireModel, new_wire_router
from app.core.errors import NotFound, Validation
from app.core.types import DEFAULT_COLLECTION, Hit, Image, Text
from app.search.arrange import Arrangement
from app.search.query import SearchQuery
from app.search.query_encoder import QueryPart
from app.service.search_service import SearchService
from app.sources.fetch.http import MAX_URL_CHARS, FetchRequest, HttpFetcher
from app.storage.library import Library
from app.storage.tables import collections, images, texts
from app.storage.tables.texts import text_from_row

router = new_wire_router("")
pictures = new_wire_router("", QUERY)

MAX_IDS = 1_000  # of one call
MAX_THUMBNAILS = 100  # of one answer, about 2 MB
NO_FETCHING = "image_url: this server fetches no URLs; start it with SIGHTLINE_FETCH=true, or send the picture"
NO_QUERY = "send text, image, image_url or embedding_input"

RowId = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Ignored = Annotated[int | float | str | bool | None, Field(description="Taken, and ignored.")]


class KnnIn(WireModel):
    """A query; the first of text, image, image_url and embedding_input that is there counts."""

    model_config = ConfigDict(json_schema_extra=example(text="red car", modality="image", num_images=40))

    text: Annotated[UnicodeText | None, Field(description="Words; empty is as absent.")] = None
    image: Annotated[str | None, Field(max_length=MAX_PICTURE_CHARS, description="A picture in base64.")] = None
    image_url: Annotated[str | None, Field(max_length=MAX_CHARS, description="Where a picture is.")] = None
    embedding_input: Annotated[
        list[FiniteFloat] | None, Field(max_length=MAX_NUMBERS, description="A vector of the model.")
    ] = None
    modality: Annotated[Literal["image", "text"], Field(description="What to search.")]
    num_images: Annotated[int, Field(ge=0, description="How many hits are described.")]
    num_result_ids: Annotated[int | None, Field(ge=0, description="How many hits in all; as num_images without.")] = (
        None
    )
    indice_name: Annotated[str | None, Field(max_length=MAX_CHARS, description="Which collection.")] = None
    deduplicate: Annotated[bool, Field(description="Show one of near-duplicates.")] = False
    use_mclip: Ignored = None
    use_safety_model: Ignored = None
    use_violence_detector: Ignored = None
    aesthetic_score: Ignored = None
    aesthetic_weight: Ignored = None


class DescribedOut(BaseModel):
    """A record as clip-retrieval's table has it; the entries of its metadata stand beside these."""

    model_config = ConfigDict(extra="allow")

    url: str | None = Field(None, description="Where the picture came from, or its file on this server.")
    image_path: str | None = Field(None, description="The name under which the picture came, unless it is a URL.")
    caption: str | None = None
    image: str | None = Field(None, description="The thumbnail in base64, of a picture that came from no URL.")
    image_id: str | None = Field(None, description="The id of the picture in the other calls.")
    text_id: str | None = Field(None, description="The id of the text in the other calls.")


class KnnHitOut(DescribedOut):
    """A hit. Those past num_images have id and similarity alone."""

    id: int = Field(description="The key of a picture; a text has a negative one.")
    similarity: float


class MetadataIn(WireModel):
    """Ids of hits."""

    model_config = ConfigDict(json_schema_extra=example(ids=[1], indice_name="default"))

    ids: Annotated[list[RowId], Field(max_length=MAX_IDS, description="Ids of hits.")]
    indice_name: Annotated[str | None, Field(max_length=MAX_CHARS, description="Which collection.")] = None


class MetadataOut(BaseModel):
    """A record that is there."""

    id: int
    metadata: DescribedOut


@pictures.post("/knn-service", response_model=list[KnnHitOut])
async def query_knn_service(
    request: Request,
    library: LibraryDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    fetcher: FetcherDep,
    body: KnnIn,
) -> Response:
    """Search as clip-retrieval does: by words, a picture, its URL or a vector, ranked by the cosine alone."""
    collection = choose_collection(body.indice_name)
    limit = body.num_images if body.num_result_ids is None else body.num_result_ids
    has_picture = not body.text and (body.image is not None or body.image_url is not None)
    async with open_incoming_folder(library, threads) if has_picture else nullcontext() as folder:
        part = parse_query(body, settings.max_text_chars)
        if folder is not None:
            path = folder / "picture"
            if body.image is not None:
                await threads.writes.run(write_picture, body.image, path)
            else:
                await threads.outside.run(fetch_picture, fetcher, body.image_url or "", path)
            part = QueryPart(picture=path)
            await threads.writes.run(check_pixels, [SearchQuery([part])], settings)
        async with take_seat(request, PICTURES if has_picture else None):
            found = await threads.queries.run(find_hits, search, body, collection, part, min(limit, settings.max_k))
    content = await threads.reads.run(write_hits, library, found, body.num_images, str(request.base_url))
    return Response(content, media_type="application/json")


@router.post("/metadata", response_model=list[MetadataOut])
async def read_wire_metadata(request: Request, library: LibraryDep, threads: ThreadsDep, body: MetadataIn) -> Response:
    """Get what is known of hits of clip-retrieval's search, by their ids."""
    if not body.ids:
        return Response(b"[]", media_type="application/json")
    collection = choose_collection(body.indice_name)
    content = await threads.reads.run(write_metadata, library, collection, body.ids, str(request.base_url))
    return Response(content, media_type="application/json")


@router.get("/indices-list")
async def list_indices(library: LibraryDep, threads: ThreadsDep) -> list[str]:
    """List the collections, as clip-retrieval lists its indices; the first one is searched if none is named."""
    found = await threads.reads.run(library.database.read, collections.list_all)
    names = [one.name for one in found if is_collection_allowed(one.name)]
    return sorted(names, key=lambda name: (name != DEFAULT_COLLECTION, name))


def choose_collection(name: str | None) -> str:
    """The collection that is named, else the first of those that the key is good for. Raises NotFound."""
    if name is None and not is_collection_allowed(DEFAULT_COLLECTION):
        name = min(ALLOWED_COLLECTIONS.get() or (), default=None)
    try:
        return validate_collection(name)
    except Validation:  # laion5B, say
        shown = (name or "")[:MAX_NAME_CHARS].encode("utf-8", "replace").decode()
        raise NotFound(f"there is no collection {shown!r}; /indices-list names those that there are") from None


def parse_query(body: KnnIn, max_chars: int) -> QueryPart:
    """What to look for, but for a picture. Words that are too long are cut, as the model does. Raises Validation."""
    if body.text:
        return QueryPart(text=body.text[:max_chars])
    if body.image is None and body.image_url is None and body.embedding_input is None:
        raise Validation(NO_QUERY)
    return QueryPart(vector=body.embedding_input)


def fetch_picture(fetcher: HttpFetcher | None, url: str, path: Path) -> None:
    """Write the picture of a URL to `path`. Raises Validation where none is fetched, UrlNotAllowed, UrlUnreachable."""
    if fetcher is None:
        raise Validation(NO_FETCHING)
    if (error := fetcher.fetch(FetchRequest(url[: MAX_URL_CHARS + 1], path)).error) is not None:
        raise error


def find_hits(search: SearchService, body: KnnIn, collection: str, part: QueryPart, limit: int) -> list[Hit]:
    """The hits with their inner products: a vector that was sent counts with its length.

    Raises Validation, NotFound, Rejected, Busy.
    """
    searcher, length = search.searcher, 1.0
    if part.vector is None:
        part = QueryPart(vector=searcher.embed(collection, [part]).tolist())
    else:
        length = float(np.linalg.norm(np.asarray(part.vector, np.float64)))
    target: Literal["images", "texts"] = "images" if body.modality == "image" else "texts"
    arrangement = Arrangement(collapse=body.deduplicate)
    query = SearchQuery([part], target, max(limit, 1), collection, arrangement=arrangement, calibrate=False)
    hits = searcher.search(query).hits[:limit]
    return [Hit(hit.id, hit.score * length, image=hit.image, text=hit.text) for hit in hits]


def write_hits(library: Library, hits: Sequence[Hit], described: int, base: str) -> bytes:
    """The body of an answer; `base` is the address of this server, which ends in a slash."""
    answer = []
    for n, hit in enumerate(hits):
        record = hit.image or hit.text
        assert record is not None
        entry: dict[str, Any] = {}
        if n < described:
            entry = describe_record(record, base)
            if isinstance(record, Image) and n < MAX_THUMBNAILS and not is_url(record.source):
                with suppress(OSError):  # the picture is deleted meanwhile
                    thumbnail = library.thumbnail_path(record).read_bytes()
                    entry["image"] = base64.b64encode(thumbnail).decode()
        answer.append({**entry, "id": find_id(record), "similarity": hit.score})
    return json.dumps(answer).encode()


def write_metadata(library: Library, collection: str, ids: Sequence[int], base: str) -> bytes:
    """The body of an answer: those of the ids that are records of the collection, in their order. Raises NotFound."""

    def work(c: apsw.Connection) -> dict[int, Image | Text]:
        collections.require(c, collection)
        rows = texts.get_rows(c, [~id for id in ids if id < 0])
        records = [*images.get_by_keys(c, [id for id in ids if id >= 0]).values(), *map(text_from_row, rows.values())]
        return {find_id(one): one for one in records if one.collection == collection}

    found = library.database.read(work)
    answer = [{"id": id, "metadata": describe_record(found[id], base)} for id in ids if id in found]
    return json.dumps(answer).encode()


def find_id(record: Image | Text) -> int:
    return record.key if isinstance(record, Image) else ~record.key


def describe_record(record: Image | Text, base: str) -> dict[str, Any]:
    """The columns of a record. Entries of its metadata replace ours, but for its id."""
    metadata: Mapping[str, Any] = record.metadata
    if isinstance(record, Text):
        return {"caption": record.text, **metadata, "text_id": record.id}
    source = record.source
    if is_url(source):
        where: dict[str, Any] = {"url": source}
    else:
        where = {"url": f"{base}v1/images/{record.id}/file?collection={record.collection}"}
        where |= {"image_path": source} if source else {}
    return {**where, "caption": record.caption or "", **metadata, "image_id": record.id}


def is_url(source: str | None) -> bool:
    return source is not None and source.startswith(("http://", "https://"))
