"""vLLM's `/v1/embeddings`: a conversation in place of `input` makes one vector; further fields say how it is sent."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from app.api.schemas.fields import WHOLE, RequestModel
from app.api.wires.dialect import (
    Content,
    Dimensions,
    Label,
    OneOrMore,
    SentPart,
    Texts,
    WireRequest,
    encode_rows,
    name_parts,
    write_list,
)
from app.core.errors import Validation
from app.service.embeddings import EmbeddingResult

OWN = frozenset(
    {"truncate_prompt_tokens", "truncation_side", "embed_dtype", "endianness", "use_activation", "priority"}
    | {"request_id", "add_special_tokens", "padding"}
)
MAX_MESSAGES = 64
ORDERS = {"native": "=", "little": "<", "big": ">"}
TYPES = {"float32": "f4", "float16": "f2"}


def read_text(value: Any) -> Any:
    """The content of a message with a list in place of one text."""
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class Message(RequestModel):
    role: Label
    content: Annotated[list[Content], OneOrMore, BeforeValidator(read_text)]


class VllmRequest(WireRequest):
    CALLED: ClassVar[str] = "vLLM"

    input: Texts | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Dimensions | None = None
    user: Label | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=1 << 20), WHOLE] | None = None
    truncation_side: Literal["left", "right"] | None = None
    embed_dtype: Literal["float32", "float16"] = "float32"
    endianness: Literal["native", "little", "big"] = "native"
    use_activation: bool | None = None
    priority: int = 0
    request_id: Label | None = None
    add_special_tokens: bool = True
    padding: Literal["max_length", "do_not_pad"] | None = None

    @classmethod
    def claims(cls, body: Mapping[str, Any]) -> bool:
        return "messages" in body or not OWN.isdisjoint(body)

    def list_inputs(self) -> list[list[SentPart]]:
        self._check()
        if self.messages is None:
            return [[SentPart(f"input.{n}", text=text)] for n, text in enumerate(self.input or ())]
        parts: list[SentPart] = []
        for n, message in enumerate(self.messages):
            parts += name_parts(f"messages.{n}", message.content)
        return [parts]

    def _check(self) -> None:
        """Raise Validation for what this server does not do."""
        if (self.messages is None) == (self.input is None):
            raise Validation("send one of input and messages")
        if self.truncation_side == "left":
            raise Validation("truncation_side: this model reads the beginning of a text; send right")
        if self.truncate_prompt_tokens is not None and self.truncate_prompt_tokens >= 0:
            raise Validation("truncate_prompt_tokens: the model decides where a text is cut; send -1, or leave it out")
        if self.use_activation is False:
            raise Validation("use_activation: the vectors of this server have length 1; send true, or leave it out")
        if not self.add_special_tokens:
            raise Validation("add_special_tokens: the model needs them; send true, or leave it out")

    def width(self) -> int | None:
        return self.dimensions

    def write_answer(self, made: EmbeddingResult) -> dict[str, Any]:
        if self.encoding_format == "base64":
            order = ORDERS[self.endianness] if self.endianness != "native" else ORDERS[sys.byteorder]
            vectors: list[Any] = encode_rows(made.vectors.astype(order + TYPES[self.embed_dtype]))
        else:
            vectors = made.vectors.tolist()
        return write_list(vectors, made, id="embd")
