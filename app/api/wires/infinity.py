"""infinity's `/embeddings`, where pictures come by `modality: "image"`, and its older `/embeddings_image`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from app.api.wires.dialect import (
    Dimensions,
    Label,
    Pictures,
    SentPart,
    WireRequest,
    is_data_uri,
    is_url,
    shape_openai_error,
    write_list,
    write_vectors,
)
from app.core.errors import Validation
from app.service.embeddings import EmbeddingResult

MAX_PICTURES = 32


class InfinityRequest(WireRequest):
    CALLED: ClassVar[str] = "infinity"

    input: Pictures
    modality: Literal["text", "image", "audio"] = "text"
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Dimensions | None = None
    user: Label | None = None

    @classmethod
    def claims(cls, body: Mapping[str, Any]) -> bool:
        return isinstance(body.get("modality"), str)

    @staticmethod
    def shape_error(status: int, code: str, detail: str) -> tuple[int, dict[str, Any]]:
        """401 as FastAPI says it, a wrong value as FastAPI's 422; a picture or model at fault is OpenAI's 400."""
        if status == 401:
            return 401, {"detail": "Unauthorized"}
        if code == "validation":
            return 422, {"detail": [{"loc": ["body"], "msg": detail, "type": "value_error"}]}
        status, body = shape_openai_error(status, code, detail)
        return (400 if status == 404 else status), body

    def list_inputs(self) -> list[list[SentPart]]:
        sent = self.input
        if self.modality == "audio":
            raise Validation("modality: this model embeds texts and pictures, no audio")
        if self.modality == "text":
            return [[SentPart(f"input.{n}", text=text.strip())] for n, text in enumerate(sent)]
        if len(sent) > MAX_PICTURES:
            raise Validation(f"input: expected at most {MAX_PICTURES} pictures, got {len(sent)}")
        for n, one in enumerate(sent):
            if not is_data_uri(one) and not is_url(one):
                raise Validation(f"input.{n}: a picture is a URL or a data URI: data:image/png;base64,...")
        return [[SentPart(f"input.{n}", picture=one)] for n, one in enumerate(sent)]

    def width(self) -> int | None:
        return self.dimensions

    def write_answer(self, made: EmbeddingResult) -> dict[str, Any]:
        return write_list(write_vectors(made.vectors, self.encoding_format or "float"), made, id="infinity")


class ImageRequest(InfinityRequest):
    """The body of `/embeddings_image`, which has no modality."""

    modality: Literal["image"] = "image"

    @classmethod
    def claims(cls, body: Mapping[str, Any]) -> bool:
        return True
