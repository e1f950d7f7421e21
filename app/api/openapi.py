"""What the OpenAPI document says beyond what FastAPI reads from the routes.

Some rules are checked by our own code, because its sentences say what is wrong better than pydantic's. `describe_field`
puts such a rule into the schema without a second check.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from app.api.permissions import ROUTE_SCOPES
from app.core.picture_formats import FORMATS
from app.core.settings import Settings
from app.core.types import KeyScope

LIMITS = "x-limits"  # keywords whose value is a setting, by its name
NULL = {"type": "null"}
COLLECTION_PATTERN = "^[a-z0-9_-]{1,64}$"
PICTURE = ", ".join(one.media_type for one in FORMATS.values())


def describe_field(*, limits: dict[str, str] | None = None, **keywords: Any) -> Any:
    """Keywords of JSON Schema that describe a field; `limits` names the setting of each keyword."""
    return Field(json_schema_extra={**keywords, **({LIMITS: dict(limits)} if limits else {})})


def text_answer(media_type: str) -> dict[str, Any]:
    """An answer that is text: that of a program, or lines of JSON."""
    return {"content": {media_type: {"schema": {"type": "string"}}}}


def bytes_answer(*media_types: str) -> dict[str, Any]:
    """An answer that is a file of one of these types."""
    return {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}}


ANY_FILE = "application/octet-stream"  # stands for every type, for programs that know no others

CollectionText = Annotated[str, describe_field(pattern=COLLECTION_PATTERN)]


def complete_document(document: dict[str, Any], settings: Settings, problem: dict[str, Any]) -> dict[str, Any]:
    """The document with the values of the settings, the calls that need no key, and the schema of errors; it is
    changed in place."""
    document["components"]["schemas"]["Problem"] = problem
    for node in _walk(document):
        for keyword, setting in node.pop(LIMITS, {}).items():
            node[keyword] = getattr(settings, setting)
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            for parameter in call.get("parameters", ()):
                parameter["schema"] = without_null(parameter["schema"])
            for answer in call["responses"].values():
                for content in answer.get("content", {}).values():
                    if "itemSchema" in content:  # of events; few programs know this word of OpenAPI 3.2
                        content.setdefault("schema", {"type": "string"})
            if ROUTE_SCOPES.get(f"{method.upper()} {path}") is KeyScope.OPEN:
                call["security"] = [{}, *call["security"]]
    return document


def without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that cannot be null: that of a parameter, or of a field of a form."""
    if NULL not in schema.get("anyOf", ()):
        return schema
    (choice,) = (one for one in schema["anyOf"] if one != NULL)
    merged = {**choice, **{name: value for name, value in schema.items() if name != "anyOf"}}
    return {name: value for name, value in merged.items() if (name, value) != ("default", None)}


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every object within a value of JSON."""
    if isinstance(node, dict):
        yield node
    for one in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _walk(one)
