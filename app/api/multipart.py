"""Multipart bodies, streamed: each file goes straight to an incoming folder, never to memory.

Starlette's own form parser keeps files up to 1 MiB in memory and writes larger ones to a second temporary folder: too
much memory and too much copying for a bulk of ten thousand pictures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, InstanceOf, ValidationError, WithJsonSchema
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api.admission import work
from app.api.errors import format_validation_errors
from app.api.openapi import PICTURE, without_null
from app.api.unknown_names import describe_unknown
from app.core.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType, Validation, map_os_errors

M = TypeVar("M", bound="FormModel")

MAX_FIELDS = 2_000
MAX_FIELD_BYTES = 1 << 20
MAX_TEXT_BYTES = 8 << 20  # of all fields together: they are kept in memory
INDEX = re.compile(r"\[\d*\]$")  # of a repeated field, as axios and PHP write it: tags[], tags[0]
WRITTEN_LIST = re.compile(r"""\[\s*(["']).*\1\s*\]""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FormFile:
    """One received file: the field it was sent as, the sender's name for it, where it lies."""

    field: str
    filename: str
    path: Path
    bytes: int


File = Annotated[InstanceOf[FormFile], WithJsonSchema({"type": "string", "format": "binary"})]


class FormModel(BaseModel):
    """The fields of a form. Lists are fields that may be repeated; a field of the type File is a file."""

    model_config = ConfigDict(extra="forbid")


@dataclass(slots=True)
class Form:
    """A received form: text fields in order of arrival, and files."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    files: list[FormFile] = field(default_factory=list)


@cache
def form_fields(model: type[FormModel]) -> Mapping[str, dict[str, Any]]:
    """The JSON schema of each field of a form."""
    fields: dict[str, dict[str, Any]] = model.model_json_schema()["properties"]
    for name, schema in fields.items():
        schema.pop("title", None)
        fields[name] = without_null(schema)
    return fields


def describe_form(
    model: type[FormModel], body: type[BaseModel] | None = None, *, file_type: str = PICTURE
) -> dict[str, Any]:
    """The form as the body of a call, for the OpenAPI document; `body` is what JSON it takes in its place.

    `file_type` are the media types of its file.
    """
    fields = {name: one for name, one in form_fields(model).items() if not one.get("deprecated")}
    required = [
        name for name, field in model.model_fields.items() if field.is_required() or "minItems" in fields.get(name, {})
    ]
    content: dict[str, Any] = {"schema": {"type": "object", "required": required, "properties": fields}}
    content["schema"]["additionalProperties"] = False
    repeated = [name for name, one in fields.items() if _is_list(one) and not _is_file(one)]
    encoding: dict[str, Any] = {name: {"style": "form", "explode": True} for name in repeated}  # /docs would join them
    encoding |= {
        name: {"contentType": file_type} for name, one in fields.items() if _is_file(one) and not _is_list(one)
    }
    if encoding:
        content["encoding"] = encoding
    kinds = {"multipart/form-data": content}
    if body is not None:
        kinds["application/json"] = {"schema": body.model_json_schema()}
    return {"requestBody": {"required": True, "content": kinds}}


def _is_list(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "array"


def _is_file(schema: Mapping[str, Any]) -> bool:
    return "binary" in (schema.get("format"), schema.get("items", {}).get("format"))


async def receive_form(request: Request, folder: Path, model: type[M], max_files: int) -> tuple[M, Form]:
    """Read a multipart request as `model`; its files are written to `folder` as they arrive.

    Raises UnsupportedMediaType for other bodies, BadRequest for broken ones, Validation for unknown fields and wrong
    values, PayloadTooLarge past the limits, StorageFull when the disk is.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise UnsupportedMediaType("expected a multipart/form-data body with a boundary; curl sends one with -F")
    reader = _Reader(folder, form_fields(model), max_files)
    try:
        parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
        async for chunk in request.stream():
            await work(request, write_part, parser, reader, chunk)
        parser.finalize()
        await work(request, reader.flush)
    except FormParserError as error:
        raise BadRequest(f"the multipart body is broken: {error}") from error
    finally:
        reader.close()
    if not reader.ended:
        raise BadRequest("the multipart body ends before its closing boundary")
    return await work(request, parse_form, model, reader.form), reader.form


def write_part(parser: MultipartParser, reader: _Reader, chunk: bytes) -> None:
    """Parse a part of the body and write what it holds of files."""
    parser.write(chunk)
    reader.flush()


def parse_form(model: type[M], form: Form) -> M:
    """The values of a form. An empty field is as not sent, but an empty `collection` is wrong. Raises Validation."""
    schemas = form_fields(model)
    values: dict[str, Any] = {}
    for name, value in (*form.fields, *((file.field, file) for file in form.files)):
        if value == "" and name != "collection":
            continue
        if not _is_list(schemas[name]):
            values[name] = value
            continue
        if isinstance(value, str) and WRITTEN_LIST.fullmatch(value):
            raise Validation(f"{name} holds a list in one field; send the field {name} once for each value")
        values.setdefault(name, []).append(value)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise Validation(format_validation_errors(error.errors())) from None


class _Reader:
    """Collects what the parser calls back; `flush` does the writing, off the event loop."""

    def __init__(self, folder: Path, schemas: Mapping[str, Mapping[str, Any]], max_files: int) -> None:
        self._schemas = schemas
        self._seen: set[str] = set()
        self.form = Form()
        self.pending: list[tuple[BinaryIO, bytes]] = []  # what is to be written; no bytes close the file
        self.ended = False
        self._folder = folder
        self._max_files = max_files
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._field = ""
        self._filename = ""
        self._data = bytearray()
        self._file: BinaryIO | None = None
        self._count = 0
        self._size = 0
        self._text_size = 0

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def flush(self) -> None:
        """Write what has arrived."""
        with map_os_errors():
            for file, data in self._take_pending():
                if data:
                    file.write(data)
                else:
                    file.close()

    def close(self) -> None:
        for file, _ in self._take_pending():
            file.close()
        if self._file is not None:
            self._file.close()

    def _take_pending(self) -> list[tuple[BinaryIO, bytes]]:
        taken, self.pending = self.pending, []
        return taken

    def _begin(self) -> None:
        self._headers = {}
        self._data = bytearray()
        self._filename = ""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise BadRequest("a part of the multipart body has no name")
        self._field = self._check_name(_decode_text(options[b"name"]))
        is_file, has_filename = _is_file(self._schemas[self._field]), b"filename" in options
        if is_file and not has_filename:
            hint = f"send it as one (curl -F {self._field}=@picture.jpg)"
            raise Validation(f"the field {self._field!r} holds text and not a file; {hint}")
        if not is_file:  # browsers give every Blob a file name, curl every @file
            if len(self.form.fields) >= MAX_FIELDS:
                raise PayloadTooLarge(f"a form may have {MAX_FIELDS} fields")
            return
        self._filename = _decode_text(options[b"filename"])
        self._count += 1
        if self._count > self._max_files:
            raise PayloadTooLarge(f"a request may have {self._max_files} files")
        self._size = 0
        with map_os_errors():
            self._file = open(self._folder / f"{self._count:06d}", "xb")  # noqa: SIM115 (closed at its end)

    def _check_name(self, name: str) -> str:
        """The field of this name, which may have an index. Raises Validation when there is none."""
        plain = INDEX.sub("", name)
        is_repeated = _is_list(self._schemas.get(plain, {}))
        if name not in self._schemas and not is_repeated:
            raise Validation(describe_unknown("field", name, self._schemas))
        if plain in self._seen and not is_repeated:
            raise Validation(f"the field {plain!r} was sent twice, expected once")
        self._seen.add(plain)
        return plain

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self.pending.append((self._file, data[start:end]))
            self._size += end - start
            return
        self._data += data[start:end]
        self._text_size += end - start
        if len(self._data) > MAX_FIELD_BYTES or self._text_size > MAX_TEXT_BYTES:
            raise PayloadTooLarge("the text fields of the form are too long")

    def _part_end(self) -> None:
        if self._file is None:
            self.form.fields.append((self._field, _decode_text(bytes(self._data))))
            return
        path = Path(self._file.name)
        self.form.files.append(FormFile(self._field, self._filename, path, self._size))
        self.pending.append((self._file, b""))
        self._file = None

    def _end(self) -> None:
        self.ended = True


def _decode_text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("the form holds text that is not UTF-8") from None
