"""Voyage's `/v1/multimodalembeddings`, where an input may mix texts and pictures, and its `/v1/embeddings` of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from app.api.schemas.fields import RequestModel
from app.api.wires.dialect import (
    Dimensions,
    Label,
    OneOrMore,
    SentPart,
    Texts,
    WirePicture,
    WireRequest,
    WireText,
    encode_rows,
    is_data_uri,
    is_url,
    name_parts,
    pack_bits,
    refuse_scaled,
    write_list,
    write_vectors,
)
from app.core.errors import Validation
from app.service.embeddings import EmbeddingResult

OWN = frozenset({"truncation", "output_dtype", "output_dimension"})
PIXELS_PER_TOKEN = 560  # by Voyage's definition of total_tokens


class _VoyageRequest(WireRequest):
    """What both calls take."""

    CALLED: ClassVar[str] = "Voyage"

    input_type: Literal["query", "document"] | None = None
    truncation: bool | None = None
    output_dimension: Dimensions | None = None
    output_dtype: Literal["float", "int8", "uint8", "binary", "ubinary"] | None = None
    encoding_format: Literal["base64"] | None = None

    @staticmethod
    def shape_error(status: int, code: str, detail: str) -> tuple[int, dict[str, Any]]:
        return (400 if status in (404, 415, 422) else status), {"detail": detail}

    def width(self) -> int | None:
        return self.output_dimension

    def truncates(self) -> bool:
        return self.truncation is not False

    def write_vectors(self, made: EmbeddingResult) -> list[Any]:
        dtype = self.output_dtype or "float"
        if self.encoding_format is None:
            return write_vectors(made.vectors, dtype)  # type: ignore[arg-type]
        if dtype == "float":
            return write_vectors(made.vectors, "base64")
        return encode_rows(pack_bits(made.vectors, signed=dtype == "binary"))


class VoyageTextRequest(_VoyageRequest):
    input: Texts

    @classmethod
    def claims(cls, body: Mapping[str, Any]) -> bool:
        return "input_type" in body or not OWN.isdisjoint(body)

    def list_inputs(self) -> list[list[SentPart]]:
        refuse_scaled("output_dtype", self.output_dtype)
        return [[SentPart(f"input.{n}", text=text)] for n, text in enumerate(self.input)]

    def write_answer(self, made: EmbeddingResult) -> dict[str, Any]:
        return write_list(self.write_vectors(made), made)


class Segment(RequestModel):
    """A part of an input."""

    type: Literal["text", "image_url", "image_base64", "video_url", "video_base64"]
    text: WireText | None = None
    image_url: WirePicture | None = None
    image_base64: WirePicture | None = None
    video_url: WirePicture | None = None
    video_base64: WirePicture | None = None

    def name_part(self, field: str) -> SentPart:
        """Raises Validation for a video, and where the field of the type is not there."""
        if self.type.startswith("video"):
            raise Validation(f"{field}: this model embeds texts and pictures, no videos")
        value = getattr(self, self.type)
        if value is None:
            raise Validation(f"{field}: the field {self.type!r} is missing")
        if self.type == "text":
            return SentPart(f"{field}.text", text=value)
        if self.type == "image_url" and not is_url(value):
            raise Validation(f"{field}.image_url: expected a URL")
        if self.type == "image_base64" and not is_data_uri(value):
            raise Validation(f"{field}.image_base64: expected a data URI: data:image/png;base64,...")
        return SentPart(f"{field}.{self.type}", picture=value)


class MixedInput(RequestModel):
    content: Annotated[list[Segment], OneOrMore]


class VoyageRequest(_VoyageRequest):
    """The body of `/v1/multimodalembeddings`."""

    model: Label
    inputs: Annotated[list[MixedInput], OneOrMore]

    @classmethod
    def claims(cls, body: Mapping[str, Any]) -> bool:
        return True

    def list_inputs(self) -> list[list[SentPart]]:
        refuse_scaled("output_dtype", self.output_dtype)
        return [name_parts(f"inputs.{n}", sent.content) for n, sent in enumerate(self.inputs)]

    def write_answer(self, made: EmbeddingResult) -> dict[str, Any]:
        total = made.tokens + made.pixels // PIXELS_PER_TOKEN
        usage = {"text_tokens": made.tokens, "image_pixels": made.pixels, "video_pixels": 0, "total_tokens": total}
        return {**write_list(self.write_vectors(made), made), "usage": usage}
