"""OpenAI's `/v1/embeddings`: texts alone. It is what a body is that no other dialect claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from app.api.wires.dialect import (
    MAX_INPUTS,
    Dimensions,
    Label,
    SentPart,
    WireRequest,
    WireText,
    as_list,
    shape_openai_error,
    write_list,
    write_vectors,
)
from app.core.errors import Validation
from app.service.embeddings import EmbeddingResult

NO_TOKENS = (
    "input: this model cannot read the tokens of another; send texts"
    " (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
)
Tokens = Annotated[list[int], Field(max_length=100_000)]


class OpenAIRequest(WireRequest):
    CALLED: ClassVar[str] = "OpenAI"
    shape_error = staticmethod(shape_openai_error)

    input: (
        WireText
        | Annotated[list[WireText], Field(min_length=1, max_length=MAX_INPUTS)]
        | Tokens
        | Annotated[list[Tokens], Field(max_length=MAX_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Dimensions | None = None
    user: Label | None = None

    @classmethod
    def claims(cls, body: Mapping[str, Any]) -> bool:
        return True

    def list_inputs(self) -> list[list[SentPart]]:
        inputs = []
        for n, text in enumerate(as_list(self.input)):
            if not isinstance(text, str):
                raise Validation(NO_TOKENS)
            if not text:
                raise Validation(f"input.{n}: an empty text has no meaning")
            inputs.append([SentPart(f"input.{n}", text=text)])
        return inputs

    def width(self) -> int | None:
        return self.dimensions

    def write_answer(self, made: EmbeddingResult) -> dict[str, Any]:
        return write_list(write_vectors(made.vectors, self.encoding_format or "float"), made)
