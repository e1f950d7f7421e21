"""Cohere's `/v2/embed` and `/v1/embed`: texts, pictures or mixed inputs, in several number types at once."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from app.api.schemas.fields import WHOLE, RequestModel
from app.api.wires.dialect import (
    MAX_INPUTS,
    Content,
    Dimensions,
    SentPart,
    WirePicture,
    WireRequest,
    WireText,
    is_data_uri,
    is_url,
    name_parts,
    refuse_scaled,
    refuse_start,
    write_vectors,
)
from app.core.errors import Validation
from app.service.embeddings import EmbeddingResult

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


class CohereInput(RequestModel):
    content: Annotated[list[Content], Field(min_length=1, max_length=MAX_INPUTS)]


class CohereRequest(WireRequest):
    """The body of `/v2/embed`."""

    CALLED: ClassVar[str] = "Cohere"
    VERSION: ClassVar[str] = "2"

    texts: Annotated[list[WireText], Field(max_length=MAX_INPUTS)] | None = None
    images: Annotated[list[WirePicture], Field(max_length=MAX_INPUTS)] | None = None
    inputs: Annotated[list[CohereInput], Field(max_length=MAX_INPUTS)] | None = None
    input_type: Literal["search_document", "search_query", "classification", "clustering", "image"] | None = None
    embedding_types: Annotated[list[EmbeddingType], Field(max_length=6)] | None = None
    output_dimension: Dimensions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 20), WHOLE] | None = None
    truncate: Literal["NONE", "START", "END"] | None = None
    priority: int | None = None

    @classmethod
    def claims(cls, body: Mapping[str, Any]) -> bool:
        return True

    @staticmethod
    def shape_error(status: int, code: str, detail: str) -> tuple[int, dict[str, Any]]:
        return (400 if status in (415, 422) else status), {"message": detail}

    def list_inputs(self) -> list[list[SentPart]]:
        self._check()
        if self.texts:
            return [[SentPart(f"texts.{n}", text=text)] for n, text in enumerate(self.texts)]
        if self.images:
            return [
                [require_address(SentPart(f"images.{n}", picture=picture))] for n, picture in enumerate(self.images)
            ]
        return [
            list(map(require_address, name_parts(f"inputs.{n}", sent.content)))
            for n, sent in enumerate(self.inputs or ())
        ]

    def _check(self) -> None:
        """Raise Validation for what this server does not do."""
        if sum(map(bool, (self.texts, self.images, self.inputs))) != 1:
            raise Validation("send one of texts, images and inputs")
        refuse_start(self.truncate)
        if self.max_tokens is not None:
            raise Validation("max_tokens: the model decides where a text is cut; leave it out")
        for kind in self.embedding_types or ():
            refuse_scaled("embedding_types", kind)

    def width(self) -> int | None:
        return self.output_dimension

    def truncates(self) -> bool:
        return self.truncate != "NONE"

    def write_answer(self, made: EmbeddingResult) -> dict[str, Any]:
        forms = list(dict.fromkeys(self.embedding_types or ["float"]))
        units = {"input_tokens": made.tokens, **({"images": made.pictures} if made.pictures else {})}
        return {
            "id": f"embd-{uuid.uuid4()}",
            "embeddings": {form: write_vectors(made.vectors, form) for form in forms},  # type: ignore[arg-type]
            "texts": self.texts or [],
            "meta": {"api_version": {"version": self.VERSION}, "billed_units": units},
            "response_type": "embeddings_by_type",
        }


class CohereV1Request(CohereRequest):
    """The body of `/v1/embed`: without `embedding_types` its answer has floats alone."""

    VERSION: ClassVar[str] = "1"

    def write_answer(self, made: EmbeddingResult) -> dict[str, Any]:
        answer = super().write_answer(made)
        if self.embedding_types:
            return answer
        return {**answer, "embeddings": answer["embeddings"]["float"], "response_type": "embeddings_floats"}


def require_address(part: SentPart) -> SentPart:
    """The part. Raises Validation for a picture that is neither a URL nor a data URI."""
    if part.picture is not None and not is_data_uri(part.picture) and not is_url(part.picture):
        raise Validation(f"{part.field}: a picture is a data URI: data:image/png;base64,...")
    return part
