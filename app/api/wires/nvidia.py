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
from app.api.wires.jina import OWN as JINAS
from app.api.wires.voyage import OWN as VOYAGES
from app.service.embeddings import EmbeddingResult

OTHERS = JINAS | VOYAGES


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
        """By values where others have the same fields: Voyage's inputs are documents, Jina's `truncate` is a bool."""
        kind, modality = body.get("input_type"), body.get("modality")
        if kind == "passage" or isinstance(body.get("truncate"), str) or isinstance(modality, list):
            return True
        others = OTHERS - {"embedding_type"} if "input_type" in body else OTHERS
        if kind == "document" or modality is not None or not others.isdisjoint(body):
            return False
        if "input_type" in body and ("encoding_format" in body or "embedding_type" in body):
            return True
        sent = body.get("input")
        listed = sent if isinstance(sent, list) else [sent]
        return any(isinstance(one, str) and is_data_uri(one, "image/") for one in listed)

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
