"""NVIDIA's NIMs, NV-CLIP among them: `input` mixes texts and data URIs of pictures."""

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
    refuse_start,
    shape_openai_error,
    write_list,
    write_vectors,
)
from app.service.embeddings import EmbeddingResult


class NvidiaRequest(WireRequest):
    CALLED: ClassVar[str] = "NV-CLIP"

    input: Pictures
    input_type: Literal["query", "passage"] | None = None
    modality: list[Literal["text", "image"]] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    embedding_type: Literal["float"] | None = None
    truncate: Literal["NONE", "START", "END"] | None = None
    dimensions: Dimensions | None = None
    user: Label | None = None

    @classmethod
    def claims(cls, body: Mapping[str, Any]) -> bool:
        if "input_type" in body and ("truncate" in body or "encoding_format" in body):
            return True
        sent = body.get("input")
        listed = sent if isinstance(sent, list) else [sent]
        return any(isinstance(one, str) and is_data_uri(one, "image/") for one in listed) and "modality" not in body

    @staticmethod
    def shape_error(status: int, code: str, detail: str) -> tuple[int, dict[str, Any]]:
        """As OpenAI's; what Weaviate's module reads, is beside it."""
        status, body = shape_openai_error(status, code, detail)
        return status, {"object": "error", "message": detail, "title": detail, "detail": detail, **body}

    def list_inputs(self) -> list[list[SentPart]]:
        refuse_start(self.truncate)
        return [
            [SentPart(f"input.{n}", picture=one) if is_data_uri(one, "image/") else SentPart(f"input.{n}", text=one)]
            for n, one in enumerate(self.input)
        ]

    def width(self) -> int | None:
        return self.dimensions

    def truncates(self) -> bool:
        return self.truncate != "NONE"

    def write_answer(self, made: EmbeddingResult) -> dict[str, Any]:
        answer = write_list(write_vectors(made.vectors, self.encoding_format or "float"), made)
        return {**answer, "usage": {**answer["usage"], "num_images": made.pictures}}
