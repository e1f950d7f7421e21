"""What a dialect of the embeddings wires is: a model of its bodies, which names the inputs and writes the answer."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BeforeValidator, Field

from app.api.json_body import STORED_PICTURES
from app.api.schemas.fields import MAX_PICTURE_CHARS, WHOLE, RequestModel, validate_unicode
from app.api.sent_pictures import write_picture
from app.core.errors import Validation
from app.encoder.protocol import Embeddings
from app.service.embeddings import EmbeddingPart, EmbeddingResult

MAX_INPUTS = 2_048  # OpenAI's and infinity's limit
MAX_CHARS = 122_880  # of a text; infinity's limit
HEAD = 32  # characters of a string that tell whether it is a data URI


def wrap(value: Any) -> Any:
    """One text, or one object, is a list of one."""
    return [value] if isinstance(value, str | dict) else value


WireText = Annotated[str, Field(max_length=MAX_CHARS), AfterValidator(validate_unicode)]
WirePicture = Annotated[str, Field(max_length=MAX_PICTURE_CHARS)]
OneOrMore = Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)
Texts = Annotated[list[WireText], OneOrMore, BeforeValidator(wrap)]
Pictures = Annotated[list[WirePicture], OneOrMore, BeforeValidator(wrap)]
Label = Annotated[str, Field(max_length=1_000)]  # a name, or what is not used here
Dimensions = Annotated[int, Field(ge=0, le=65_536), WHOLE]
Number = Literal["float", "base64", "binary", "ubinary"]


@dataclass(frozen=True, slots=True)
class SentPart:
    """A text, or a picture as base64, data URI or URL. `field` is where it is in the body."""

    field: str
    text: str | None = None
    picture: str | None = None


class WireRequest(RequestModel):
    """The body of a dialect."""

    CALLED: ClassVar[str]
    model: Label | None = None

    @classmethod
    def claims(cls, body: Mapping[str, Any]) -> bool:
        """Whether a body is of this dialect; it is not checked yet."""
        raise NotImplementedError

    @staticmethod
    def shape_error(status: int, code: str, detail: str) -> tuple[int, dict[str, Any]]:
        """The status and the body of an error, as the clients of this dialect read them; OpenAI's by default."""
        return shape_openai_error(status, code, detail)

    def list_inputs(self) -> list[list[SentPart]]:
        """The parts of each input, in order. Raises Validation."""
        raise NotImplementedError

    def width(self) -> int | None:
        """How many numbers a vector is to have; None for all."""
        return None

    def truncates(self) -> bool:
        """Whether a text that is too long is cut, and no error."""
        return True

    def write_answer(self, made: EmbeddingResult) -> dict[str, Any]:
        """The answer as JSON has it."""
        raise NotImplementedError


class ImageUrl(RequestModel):
    url: WirePicture
    detail: Literal["auto", "low", "high"] | None = None


class Content(RequestModel):
    """A part of an input, as in a message of OpenAI."""

    type: Literal["text", "image_url"]
    text: WireText | None = None
    image_url: ImageUrl | None = None

    def name_part(self, field: str) -> SentPart:
        """Raises Validation where the field of the type is not there."""
        if self.type == "text" and self.text is not None:
            return SentPart(f"{field}.text", text=self.text)
        if self.type == "image_url" and self.image_url is not None:
            return SentPart(f"{field}.image_url.url", picture=self.image_url.url)
        raise Validation(f"{field}: the field {self.type!r} is missing")


class Nameable(Protocol):
    def name_part(self, field: str) -> SentPart: ...


def name_parts(field: str, content: Iterable[Nameable]) -> list[SentPart]:
    """The parts of one input. Raises Validation."""
    return [one.name_part(f"{field}.content.{n}") for n, one in enumerate(content)]


def refuse_start(truncate: str | None) -> None:
    """Raise Validation where a text is to be cut at its start."""
    if truncate == "START":
        raise Validation("truncate: this model reads the beginning of a text; send END or NONE")


def refuse_scaled(field: str, kind: str | None) -> None:
    """Raise Validation for bytes that stand for scaled numbers."""
    if kind in ("int8", "uint8"):
        raise Validation(f"{field}: {kind} needs ranges that this model has not been measured for")


def is_data_uri(text: str, kind: str = "") -> bool:
    """Whether a string of the body is a data URI (of this kind); a long one lies in a file."""
    if (stored := STORED_PICTURES.get().get(text)) is not None:
        with open(stored, "rb") as file:
            text = file.read(HEAD).decode("latin-1")
    return text[:HEAD].lstrip().lower().replace("\\/", "/").startswith(f"data:{kind}")


def is_url(text: str) -> bool:
    return text[:HEAD].lstrip().lower().startswith(("http://", "https://"))


def read_part(sent: SentPart, folder: Path, name: str) -> EmbeddingPart:
    """The part; the bytes of a picture are written to the file `name` of `folder`. Raises Validation."""
    if sent.text is not None:
        if sent.text in STORED_PICTURES.get():
            raise Validation(f"{sent.field}: this is a picture, or a text without any space; expected a text")
        return EmbeddingPart(sent.field, text=sent.text)
    picture = sent.picture or ""
    if is_url(picture):
        return EmbeddingPart(sent.field, url=picture.strip())
    path = folder / name
    try:
        write_picture(picture, path)
    except Validation as error:
        raise Validation(f"{sent.field}: {error.detail}") from None
    return EmbeddingPart(sent.field, picture=path)


def read_parts(inputs: Sequence[Sequence[SentPart]], folder: Path) -> list[list[EmbeddingPart]]:
    """The inputs, with pictures in files of `folder`. Raises Validation."""
    if not inputs:
        raise Validation("there is nothing to embed")
    if (count := sum(map(len, inputs))) > MAX_INPUTS:
        raise Validation(f"one request may have {MAX_INPUTS} texts and pictures, this has {count}")
    return [[read_part(part, folder, f"{n}-{m}") for m, part in enumerate(parts)] for n, parts in enumerate(inputs)]


def write_vectors(vectors: Embeddings, form: Number) -> list[Any]:
    """Each vector as a list of floats; base64 of float32, little endian; or a bit for each dimension, set where the
    number is positive, the first in the highest bit: as bytes (`ubinary`), or these less 128 (`binary`)."""
    if form == "float":
        return list(vectors.tolist())
    if form == "base64":
        return encode_rows(vectors.astype("<f4"))
    return list(pack_bits(vectors, signed=form == "binary").tolist())


def pack_bits(vectors: Embeddings, *, signed: bool) -> npt.NDArray[Any]:
    """uint8 or int8 [n, d/8], rounded up."""
    packed = np.packbits(vectors > 0, axis=1)
    return (packed.astype(np.int16) - 128).astype(np.int8) if signed else packed


def encode_rows(rows: npt.NDArray[Any]) -> list[str]:
    """The base64 of the bytes of each row."""
    return [base64.b64encode(row.tobytes()).decode("ascii") for row in rows]


def write_list(vectors: Sequence[Any], made: EmbeddingResult, *, id: str | None = None) -> dict[str, Any]:
    """OpenAI's answer, which the other dialects extend."""
    data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
    usage = {"prompt_tokens": made.tokens, "total_tokens": made.tokens}
    named = {} if id is None else {"id": f"{id}-{uuid.uuid4()}", "created": int(time.time())}
    return {**named, "object": "list", "data": data, "model": made.model, "usage": usage}


def shape_openai_error(status: int, code: str, detail: str) -> tuple[int, dict[str, Any]]:
    """OpenAI's errors: a value that is wrong is 400."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    codes = {"unauthorized": "invalid_api_key", "not_found": "model_not_found", "rate_limited": "rate_limit_exceeded"}
    status = 400 if status in (415, 422) else status
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return status, {"error": {"message": detail, "type": kind, "param": None, "code": codes.get(code, code)}}
