"""OpenAI's `/v1/embeddings`: texts alone. It is what a body is that no other dialect claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from app.api.wires.dialect import (
    Dimensions,
    Label,
    SentPart,
    Texts,
    WireRequest,
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


def refuse_tokens(value: Any) -> Any:
    """Raises Validation for an array of tokens, and for a list of such."""
    if isinstance(value, list) and value and isinstance(value[0], int | list):
        raise Validation(NO_TOKENS)
    return value


class OpenAIRequest(WireRequest):
    CALLED: ClassVar[str] = "OpenAI"

    input: Annotated[Texts, BeforeValidator(refuse_tokens)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Dimensions | None = None
    user: Label | None = None

    @classmethod
    def claims(cls, body: Mapping[str, Any]) -> bool:
        return True

    @staticmethod
    def shape_error(status: int, code: str, detail: str) -> tuple[int, dict[str, Any]]:
        """Beside it, what Weaviate's multi2vec-nvidia reads: its texts look like OpenAI's."""
        status, body = shape_openai_error(status, code, detail)
        return status, {**body, "message": detail}

    def list_inputs(self) -> list[list[SentPart]]:
        inputs = []
        for n, text in enumerate(self.input):
            if not text:
                raise Validation(f"input.{n}: an empty text has no meaning")
            inputs.append([SentPart(f"input.{n}", text=text)])
        return inputs

    def width(self) -> int | None:
        return self.dimensions

    def write_answer(self, made: EmbeddingResult) -> dict[str, Any]:
        return write_list(write_vectors(made.vectors, self.encoding_format or "float"), made)
