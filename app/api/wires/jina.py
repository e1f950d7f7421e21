"""Jina's `/v1/embeddings`: objects with a text or a picture, in any order, and `embedding_type`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, model_validator

from app.api.schemas.fields import RequestModel
from app.api.wires.dialect import (
    Dimensions,
    Label,
    Number,
    OneOrMore,
    SentPart,
    WirePicture,
    WireRequest,
    WireText,
    wrap,
    write_list,
    write_vectors,
)
from app.core.errors import Validation
from app.service.embeddings import EmbeddingResult

OWN = frozenset({"embedding_type", "encoding_type", "normalized", "task", "late_chunking"})
NOT_NORMALIZED = "normalized: the vectors of this server have length 1; send true, or leave it out"


class JinaInput(RequestModel):
    """One input. `bytes` and `url` are the names of `image` in older clients."""

    text: WireText | None = None
    image: WirePicture | None = None
    bytes: WirePicture | None = None
    url: WirePicture | None = None

    @model_validator(mode="after")
    def _check(self) -> JinaInput:
        if sum(one is not None for one in (self.text, self.image, self.bytes, self.url)) != 1:
            raise ValueError("expected one of text and image")
        return self

    def name_part(self, field: str) -> SentPart:
        if self.text is not None:
            return SentPart(f"{field}.text", text=self.text)
        return SentPart(f"{field}.image", picture=self.image or self.bytes or self.url or "")


def read_texts(value: Any) -> Any:
    """The inputs with an object in place of each text."""
    listed = wrap(value)
    return [{"text": one} if isinstance(one, str) else one for one in listed] if isinstance(listed, list) else listed


class JinaRequest(WireRequest):
    CALLED: ClassVar[str] = "Jina"

    input: Annotated[list[JinaInput], OneOrMore, BeforeValidator(read_texts)]
    embedding_type: Number | None = None
    encoding_type: Number | None = None
    normalized: bool | None = None
    task: Label | None = None
    dimensions: Dimensions | None = None
    late_chunking: bool | None = None
    truncate: bool | None = None
    user: Label | None = None

    @classmethod
    def claims(cls, body: Mapping[str, Any]) -> bool:
        if "input_type" in body:
            return False
        sent = body.get("input")
        listed = sent if isinstance(sent, list) else [sent]
        return not OWN.isdisjoint(body) or any(isinstance(one, dict) for one in listed)

    @staticmethod
    def shape_error(status: int, code: str, detail: str) -> tuple[int, dict[str, Any]]:
        return (422 if status == 415 else status), {"detail": detail}

    def list_inputs(self) -> list[list[SentPart]]:
        if self.normalized is False:
            raise Validation(NOT_NORMALIZED)
        if self.late_chunking:
            raise Validation("late_chunking: this model embeds each text by itself")
        return [[one.name_part(f"input.{n}")] for n, one in enumerate(self.input)]

    def width(self) -> int | None:
        return self.dimensions

    def truncates(self) -> bool:
        return self.truncate is not False

    def write_answer(self, made: EmbeddingResult) -> dict[str, Any]:
        form = self.embedding_type or self.encoding_type or "float"
        return write_list(write_vectors(made.vectors, form), made)
