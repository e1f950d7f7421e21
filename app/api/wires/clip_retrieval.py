"""The calls of clip-retrieval's server (`clip_back`), for its `ClipClient` and its page.

A collection is an index. The id of a picture is the key of its row, and that of a text the key's complement (`~key`, a
negative number), so that no two records have one id. Hits are ranked by their cosine alone, as clip-retrieval does it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from pydantic_core import to_json

from app.api.admission import PICTURES, QUERY, take_seat
from app.api.dependencies import (
    ALLOWED_COLLECTIONS,
    EmbeddingsDep,
    LibraryDep,
    SearchDep,
    SettingsDep,
    ThreadsDep,
    is_collection_allowed,
    open_incoming_folder,
    validate_collection,
)
from app.api.errors import ERROR_SHAPES, MAX_NAME_CHARS
from app.api.schemas.fields import MAX_CHARS, MAX_NUMBERS, UnicodeText
from app.api.sent_pictures import check_pixels
from app.api.strict_route import new_router
from app.api.wires.dialect import SentPart, WirePicture, read_part
from app.api.wires.loose import LooseJsonRoute, shape_as
from app.core.errors import NotFound, Validation
from app.core.types import DEFAULT_COLLECTION, Hit, Image, Target, Text
from app.search.arrange import Arrangement
from app.search.query import SearchQuery
from app.search.query_encoder import QueryPart
from app.service.embeddings import EmbeddingPart, EmbeddingService
from app.service.search_service import SearchService
from app.storage.library import Library

router = new_router("", "wires", route_class=LooseJsonRoute)
pictures = new_router("", "wires", QUERY, LooseJsonRoute)

MAX_IDS = 1_000  # of one call
MAX_THUMBNAILS = 100  # of one answer, about 2 MB
NO_QUERY = "send text, image, image_url or embedding_input"

RowId = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Name = Annotated[str, Field(max_length=MAX_CHARS)]
Ignored = int | float | Name | bool | None


class WireModel(BaseModel):
    """A body: fields that we do not know are left out, as clip-retrieval does it."""

    model_config = ConfigDict(extra="ignore")


class KnnIn(WireModel):
    """A query; the first of text (unless it is empty), image, image_url and embedding_input counts."""

    text: UnicodeText | None = None
    image: WirePicture | None = None
    image_url: Name | None = None
    embedding_input: Annotated[list[FiniteFloat], Field(max_length=MAX_NUMBERS)] | None = None
    modality: Literal["image", "text"]
    num_images: Annotated[int, Field(ge=0)]  # hits that are described
    num_result_ids: Annotated[int, Field(ge=0)] | None = None  # hits in all
    indice_name: Name | None = None
    deduplicate: bool = False
    use_mclip: Ignored = None
    use_safety_model: Ignored = None
    use_violence_detector: Ignored = None
    aesthetic_score: Ignored = None
    aesthetic_weight: Ignored = None

    @property
    def limit(self) -> int:
        return self.num_images if self.num_result_ids is None else self.num_result_ids

    @property
    def has_picture(self) -> bool:
        return not self.text and (self.image is not None or self.image_url is not None)


class MetadataIn(WireModel):
    ids: Annotated[list[RowId], Field(max_length=MAX_IDS)]
    indice_name: Name | None = None


@pictures.post("/knn-service", include_in_schema=False)
async def query_knn_service(
    request: Request,
    library: LibraryDep,
    search: SearchDep,
    embeddings: EmbeddingsDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    body: KnnIn,
) -> Response:
    """Search by words, a picture, its URL or a vector."""
    collection = choose_collection(body.indice_name)
    async with open_incoming_folder(library, threads) if body.has_picture else nullcontext(Path()) as folder:
        part = await threads.writes.run(read_query, body, folder)
        if part is not None and part.url is not None:
            ((part,),) = await threads.outside.run(embeddings.fetch, [[part]], folder)
        if part is not None and part.picture is not None:
            await threads.writes.run(check_pixels, [part.picture], settings)
        async with take_seat(request, PICTURES if body.has_picture else None):
            limit = min(body.limit, settings.max_k)
            found = await threads.queries.run(find_hits, search, embeddings, body, collection, part, limit)
    content = await threads.reads.run(write_hits, library, found, body.num_images, str(request.base_url))
    return Response(content, media_type="application/json")


@router.post("/metadata", include_in_schema=False)
async def read_metadata(request: Request, library: LibraryDep, threads: ThreadsDep, body: MetadataIn) -> Response:
    """Get what is known of hits, by their ids."""
    if not body.ids:
        return Response(b"[]", media_type="application/json")
    collection = choose_collection(body.indice_name)
    content = await threads.reads.run(write_metadata, library, collection, body.ids, str(request.base_url))
    return Response(content, media_type="application/json")


@router.get("/indices-list", include_in_schema=False)
async def list_indices(library: LibraryDep, threads: ThreadsDep) -> list[str]:
    """List the collections; the first one is searched if none is named."""
    names = await threads.reads.run(library.list_collection_names)
    return sorted(filter(is_collection_allowed, names), key=lambda name: (name != DEFAULT_COLLECTION, name))


for _path in ("/knn-service", "/metadata", "/indices-list"):
    ERROR_SHAPES[_path] = partial(shape_as, "message")


def choose_collection(name: str | None) -> str:
    """The collection that is named, else the first of those that the key is good for. Raises NotFound."""
    if name is None and not is_collection_allowed(DEFAULT_COLLECTION):
        name = min(ALLOWED_COLLECTIONS.get() or (), default=None)
    try:
        return validate_collection(name)
    except Validation:  # laion5B, say
        shown = (name or "")[:MAX_NAME_CHARS].encode("utf-8", "replace").decode()
        raise NotFound(f"there is no collection {shown!r}; /indices-list names those that there are") from None


def read_query(body: KnnIn, folder: Path) -> EmbeddingPart | None:
    """What is to be embedded; None for a vector. A picture is written to `folder`. Raises Validation."""
    if body.text:
        return EmbeddingPart("text", text=body.text)
    if body.image is not None:
        return read_part(SentPart("image", picture=body.image), folder, "image")
    if body.image_url is not None:
        return EmbeddingPart("image_url", url=body.image_url)
    if body.embedding_input is None:
        raise Validation(NO_QUERY)
    return None


def find_hits(
    search: SearchService,
    embeddings: EmbeddingService,
    body: KnnIn,
    collection: str,
    part: EmbeddingPart | None,
    limit: int,
) -> list[Hit]:
    """The hits with their inner products: a vector that was sent counts with its length.

    Raises Validation, NotFound, Rejected, Busy.
    """
    vector: Sequence[float] = body.embedding_input or ()
    length = float(np.linalg.norm(np.asarray(vector, np.float64)))
    if part is not None:
        vector, length = embeddings.embed([[part]]).vectors[0].tolist(), 1.0
    target: Target = "images" if body.modality == "image" else "texts"
    arrangement = Arrangement(collapse=body.deduplicate)
    given = [QueryPart(vector=vector)]
    query = SearchQuery(given, target, max(limit, 1), collection, arrangement=arrangement, calibrate=False)
    hits = search.searcher.search(query).hits[:limit]
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
            if isinstance(record, Image) and n < MAX_THUMBNAILS and not has_url(record):
                thumbnail = library.blobs.fetch_thumbnail(library.thumbnail_path(record))
                if thumbnail is not None:  # or the picture is deleted meanwhile
                    with thumbnail:
                        entry["image"] = base64.b64encode(thumbnail.read()).decode()
        answer.append({**entry, "id": find_id(record), "similarity": hit.score})
    return to_json(answer)


def write_metadata(library: Library, collection: str, ids: Sequence[int], base: str) -> bytes:
    """The body of an answer: those of the ids that are records of the collection, in their order. Raises NotFound."""

    found, texts = library.get_by_keys(collection, [id for id in ids if id >= 0], [~id for id in ids if id < 0])
    records: dict[int, Image | Text] = {find_id(image): image for image in found.values()}
    records |= {find_id(text): text for text in texts.values()}
    answer = [{"id": id, "metadata": describe_record(records[id], base)} for id in ids if id in records]
    return to_json(answer)


def find_id(record: Image | Text) -> int:
    return record.key if isinstance(record, Image) else ~record.key


def describe_record(record: Image | Text, base: str) -> dict[str, Any]:
    """The columns of a record. Entries of its metadata replace ours, but for its id."""
    metadata: Mapping[str, Any] = record.metadata
    if isinstance(record, Text):
        return {"caption": record.text, **metadata, "text_id": record.id}
    if has_url(record):
        where: dict[str, Any] = {"url": record.source}
    else:
        where = {"url": f"{base}v1/images/{record.id}/file?collection={record.collection}"}
        where |= {"image_path": record.source} if record.source else {}
    return {**where, "caption": record.caption or "", **metadata, "image_id": record.id}


def has_url(image: Image) -> bool:
    """Whether the picture came from a URL."""
    return image.source is not None and image.source.startswith(("http://", "https://"))
