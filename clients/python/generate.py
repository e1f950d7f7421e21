"""Write the generated modules of the client from the OpenAPI document of this checkout.

    python clients/python/generate.py            write them
    python clients/python/generate.py --check    say which are not up to date, and fail

`models.py` has a class for each record of an answer, `aio/calls.py` a method for each call. `sync/` is `aio/` without
`async` and `await`.
"""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGE = HERE / "sightline_client"
HEADER = '"""{about}, written by generate.py from the OpenAPI document of the server. Do not edit."""\n\n'
BY_HAND = ("__init__.py", "waiting.py")  # in sync, too
HANDWRITTEN = ("follow_job", "follow_saved_search")  # streams of events
READS = ("find_known_images",)  # changes nothing, though it is a POST
FORMATS = ("format",)  # parameters that choose another form of the same answer
FILTERS = {"Clauses", "FilterNode"}
NAMES = {
    "BatchOut": "BatchResult",
    "ClassifyOut": "Classification",
    "DeleteOut_CollectionOut_": "DeletedCollections",
    "DeleteOut_HeadOut_": "DeletedHeads",
    "DeleteOut_ImageOut_": "DeletedImages",
    "DeleteOut_SavedSearchOut_": "DeletedSavedSearches",
    "DeleteOut_TextOut_": "DeletedTexts",
    "DeleteOut_VideoOut_": "DeletedVideos",
    "ErrorOut": "ItemError",
    "LabelIn": "NewLabel",
    "MatchesOut": "Matches",
    "ParamsIn": "SearchParams",
    "PartIn": "QueryPart",
    "SearchIn": "SearchQuery",
    "SearchOut": "SearchResult",
    "TextIn": "NewText",
    "TextsOut": "StoredTexts",
    "Took": "Timings",
    "WarningOut": "AnswerWarning",
    "WebhookIn": "NewWebhook",
}
AS_JSON = {"filter": "Filter", "metadata": "Mapping[str, Any]", "left_out": "Mapping[str, int]"}  # as text in forms
SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
TO_SYNC = (
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bAsync(Client|Calls|Transport|Iterator|Iterable|Generator|ExitStack|BaseTransport|HTTPTransport)\b", r"\1"),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"\ba(iter_lines|iter_bytes|read|close|close_all)\b", r"\1"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"sightline_client\.aio\b", "sightline_client.sync"),
    (r"\bthe asynchronous client\b", "the client"),
)


def read_document() -> dict[str, Any]:
    """The OpenAPI document of a server of this checkout."""
    from app.api.app import create_app
    from app.core.settings import Settings
    from app.service.service import open_service

    with tempfile.TemporaryDirectory() as folder:
        service = open_service(Settings(data_dir=Path(folder), model="colours"))
        try:
            document: dict[str, Any] = create_app(service).openapi()
        finally:
            service.close()
    return document


def name_class(schema: str) -> str:
    return NAMES.get(schema) or re.sub("(Out|In)$", "", schema)


def write_type(schema: Mapping[str, Any], *, is_input: bool = False) -> str:
    """The Python type of a schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "Filter" if name in FILTERS else name_class(name)
    if choices := schema.get("anyOf", schema.get("oneOf")):
        return " | ".join(dict.fromkeys(write_type(one, is_input=is_input) for one in choices))
    if "const" in schema:
        return f"Literal[{schema['const']!r}]"
    if "enum" in schema:
        return f"Literal[{', '.join(map(repr, schema['enum']))}]"
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(SCALARS[one] for one in kind)
    if kind == "array":
        item = write_type(schema.get("items", {}), is_input=is_input)
        return f"{'Sequence' if is_input else 'list'}[{item}]"
    if kind == "object" or kind is None:
        values = schema.get("additionalProperties")
        value = write_type(values, is_input=is_input) if isinstance(values, Mapping) and values else "Any"
        return f"{'Mapping' if is_input else 'dict'}[str, {value}]"
    return "Picture" if schema.get("contentMediaType") or schema.get("format") == "binary" else SCALARS[kind]


def find_refs(node: Any) -> Iterator[str]:
    """The names of the schemas that a piece of the document names."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == "$ref":
                yield value.rpartition("/")[2]
            else:
                yield from find_refs(value)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for one in node:
            yield from find_refs(one)


def list_models(document: Mapping[str, Any]) -> list[str]:
    """The schemas that answers have, and those within the bodies of calls."""
    schemas = document["components"]["schemas"]
    todo: list[str] = []
    for _, _, call in list_calls(document):
        todo += find_refs(call.get("parameters", ()))
        todo += [name for status, answer in call["responses"].items() if status < "3" for name in find_refs(answer)]
        for content in call.get("requestBody", {}).get("content", {}).values():
            body = resolve(document, content["schema"])
            todo += find_refs(body.get("properties", {}))
    found: dict[str, None] = {}
    while todo:
        name = todo.pop()
        if name not in found and name not in FILTERS:
            found[name] = None
            todo += find_refs(schemas[name])
    if len(set(map(name_class, found))) < len(found):
        raise ValueError("two schemas have the same name in the client: give one another in NAMES")
    for name in map(name_class, found):
        if "_" in name:
            raise ValueError(f"{name} is no name for a class: give it another in NAMES")
    return sorted(found, key=name_class)


def resolve(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself, or the one that it names."""
    if "$ref" in schema:
        named: Mapping[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return named
    return schema


def write_models(document: Mapping[str, Any]) -> str:
    schemas = document["components"]["schemas"]
    lines = [HEADER.format(about="The records of bodies and answers")]
    lines.append(
        "from __future__ import annotations\n\nfrom collections.abc import Mapping\nfrom typing import Any, Literal\n"
    )
    lines.append("from pydantic import BaseModel, ConfigDict, Field\n")
    lines.append("Filter = Mapping[str, Any]\n")
    for name in list_models(document):
        schema = schemas[name]
        if "properties" not in schema:
            lines.append(f"{name_class(name)} = {write_type(schema)}\n")
            continue
        is_input = schema.get("additionalProperties") is False
        lines.append(f"\nclass {name_class(name)}(BaseModel):")
        lines.append(write_docstring(schema.get("description", "")))
        if is_input:
            lines.append('    model_config = ConfigDict(extra="forbid")\n')
        lines += [write_field(*field, schema.get("required", ())) for field in schema["properties"].items()]
    return "\n".join(lines)


def write_docstring(text: str, indent: str = "    ") -> str:
    text = " ".join(text.split())
    if not text:
        return ""
    wrapped = textwrap.fill(text, 105, break_long_words=False, break_on_hyphens=False)
    if "\n" in wrapped:
        wrapped += "\n"
    return textwrap.indent(f'"""{wrapped}"""\n', indent)


def write_field(name: str, schema: Mapping[str, Any], required: Sequence[str]) -> str:
    kind = write_type(schema)
    if keyword.iskeyword(name):
        line = f'    {name}_: {kind.removesuffix(" | None")} | None = Field(None, alias="{name}")'
    elif name in required and not kind.endswith(" | None"):  # an older server may lack what can be null
        line = f"    {name}: {kind}"
    elif "default" in schema and schema["default"] is not None:
        line = f"    {name}: {kind} = {schema['default']!r}"
    elif kind.startswith(("list[", "dict[")) and "None" not in kind:
        line = f"    {name}: {kind} = {'[]' if kind.startswith('list') else '{}'}"
    else:
        line = f"    {name}: {kind.removesuffix(' | None')} | None = None"
    return line + ("\n" + write_docstring(schema["description"]).rstrip("\n") if schema.get("description") else "")


def list_calls(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Method, path and description of each call."""
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            if call["operationId"] in HANDWRITTEN:
                continue
            if any("text/event-stream" in answer.get("content", {}) for answer in call["responses"].values()):
                raise ValueError(f"{call['operationId']} is a stream of events: write it by hand (HANDWRITTEN)")
            yield method.upper(), path, call


def list_parameters(document: Mapping[str, Any], call: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The parameters of a method: of the path, of the body (in any of its forms), then of the query.

    Each has its `place`, `schema`, whether it is `required`, and its `description`.
    """
    found: dict[str, dict[str, Any]] = {}
    queried = [one for one in call.get("parameters", ()) if one["in"] != "header" and one["name"] not in FORMATS]
    for one in queried:
        if one["in"] == "path":
            found[one["name"]] = {**one, "place": "path", "required": True}
    bodies = [
        (kind, resolve(document, content["schema"]))
        for kind, content in call.get("requestBody", {}).get("content", {}).items()
        if kind != "application/x-ndjson"
    ]
    for _, body in bodies:
        for name, schema in body.get("properties", {}).items():
            needed = all(name in other.get("required", ()) for _, other in bodies)
            said = {"place": "body", "schema": schema, "required": needed}
            found.setdefault(name, {**said, "description": schema.get("description", "")})
    for one in queried:
        if one["in"] == "query":
            found.setdefault(one["name"], {**one, "place": "query"})
    return dict(sorted(found.items(), key=lambda item: not item[1].get("required", False)))


def write_answer(call: Mapping[str, Any]) -> tuple[str, str]:
    """The type of the answer, and how the transport reads it: a model, `bytes`, `str` or None."""
    kinds: list[str] = []
    for status, answer in sorted(call["responses"].items()):
        if not status.startswith("2"):
            continue
        content = answer.get("content", {})
        if status == "204":
            kinds.append("None")
        elif "application/json" in content and content["application/json"].get("schema"):
            kinds.append(write_type(content["application/json"]["schema"]))
        else:
            kinds.append("bytes")
    kinds = sorted(dict.fromkeys(kinds), key=lambda kind: kind == "None")
    return " | ".join(kinds), kinds[0]


def list_file_forms(call: Mapping[str, Any]) -> list[str]:
    """The media types of files that a call answers when it is asked for them, in place of its JSON."""
    contents = call["responses"].get("200", {}).get("content", {})
    return [
        kind
        for kind, content in contents.items()
        if "application/json" in contents and content.get("schema", {}).get("format") == "binary"
    ]


def write_call(
    document: Mapping[str, Any], method: str, path: str, call: Mapping[str, Any], accept: str | None = None
) -> str:
    """The method of a call; with `accept` the one whose answer is a file of this type."""
    parameters = list_parameters(document, call)
    answer, read = ("bytes", "bytes") if accept else write_answer(call)
    names = {name: f"{name}_" if keyword.iskeyword(name) else name for name in parameters}
    signature = ["self"]
    is_patch = method == "PATCH"
    signature += [f"{names[name]}: str" for name, one in parameters.items() if one["place"] == "path"]
    others = [name for name, one in parameters.items() if one["place"] != "path"]
    if others:
        signature.append("*")
        said = {name: write_parameter(name, parameters[name], is_patch=is_patch) for name in others}
        signature += [f"{names[name]}: {kind}" for name, kind in said.items()]
    heads = {one["name"] for one in call.get("parameters", ()) if one["in"] == "header"}
    contents = [kind for kind in call.get("requestBody", {}).get("content", {}) if kind != "application/x-ndjson"]
    is_search = "search" in call.get("tags", ()) and "201" not in call["responses"]
    is_repeatable = method != "POST" or "Idempotency-Key" in heads or is_search or call["operationId"] in READS
    url = re.sub(r"\{(\w+)\}", lambda match: "{quote(" + match[1] + ")}", path)
    sent = [f'"{method}"', f'{"f" if url != path else ""}"{url}"', read]
    for place in ("query", "body"):
        pairs = [f'"{name}": {names[name]}' for name, one in parameters.items() if one["place"] == place]
        if pairs:
            sent.append(f"{place}={{{', '.join(pairs)}}}")
    nulls = [
        name
        for name, one in parameters.items()
        if one["place"] == "body" and "None" in write_type(one["schema"]) and (is_patch or one["required"])
    ]
    if nulls:
        sent.append(f"nulls={tuple(nulls)!r}")
    if "multipart/form-data" in contents:
        files = [name for name in ("file", "files") if name in parameters]
        sent.append(f'files="{files[0]}"')
        if "application/json" not in contents:
            sent.append("is_form=True")
    if "Idempotency-Key" in heads:
        sent.append("is_keyed=True")
    if not is_repeatable:
        sent.append("is_repeatable=False")
    if "None" in answer and read != "None":
        sent.append("is_optional=True")
    if accept:
        sent.append(f'accept="{accept}"')
    name = call["operationId"] + (f"_as_{accept.rpartition('/')[2]}" if accept else "")
    lines = [f"    async def {name}({', '.join(signature)}) -> {answer}:"]
    about = f"{call['summary']}: a file of the type {accept}." if accept else call.get("description") or call["summary"]
    lines.append(write_docstring(about, " " * 8).rstrip("\n"))
    returned = "" if answer == "None" else "return "
    lines.append(f"        {returned}await self._run(Call({', '.join(sent)}))\n")
    return "\n".join(lines)


def write_parameter(name: str, one: Mapping[str, Any], *, is_patch: bool = False) -> str:
    kind = write_type(one["schema"], is_input=True)
    if kind.removesuffix(" | None") == "str" and name in AS_JSON:
        kind = AS_JSON[name]
    if one.get("required"):
        return kind
    if is_patch and one["place"] == "body":
        kinds = [one for one in kind.split(" | ") if one != "None"]
        return f"{' | '.join([*kinds, 'Unset', *(['None'] if 'None' in kind else [])])} = UNSET"
    return f"{kind.removesuffix(' | None')} | None = None"


def write_calls(document: Mapping[str, Any]) -> str:
    methods = [
        write_call(document, *call, form) for call in list_calls(document) for form in (None, *list_file_forms(call[2]))
    ]
    text = "\n".join(methods)
    models = sorted(name for name in map(name_class, list_models(document)) if re.search(rf"\b{name}\b", text))
    head = HEADER.format(about="A method for each call of the API")
    head += "from __future__ import annotations\n\nfrom collections.abc import Mapping, Sequence\nfrom typing import Any, Literal\n\n"
    head += "from sightline_client.aio.transport import AsyncTransport\nfrom sightline_client.call import UNSET, Call, Unset, quote\n"
    head += f"from sightline_client.models import Filter, {', '.join(models)}\n"
    head += "from sightline_client.pictures import Picture\n\n\n"
    return head + 'class AsyncCalls(AsyncTransport):\n    """The calls of a server, one method each."""\n\n' + text


def write_sync(text: str) -> str:
    for pattern, replacement in TO_SYNC:
        text = re.sub(pattern, replacement, text)
    return text


def write_all(document: Mapping[str, Any]) -> dict[Path, str]:
    """The text of every generated module, by its path."""
    texts = {PACKAGE / "models.py": write_models(document), PACKAGE / "aio" / "calls.py": write_calls(document)}
    texts = {path: format_code(text) for path, text in texts.items()}
    for path in sorted({*(PACKAGE / "aio").glob("*.py"), *texts} - {PACKAGE / "models.py"}):
        if path.name in BY_HAND:
            continue
        text = texts.get(path) or path.read_text("utf-8")
        texts[PACKAGE / "sync" / path.name] = format_code(write_sync(text))
    return texts


def format_code(text: str) -> str:
    for command in (["check", "--fix-only", "--quiet", "--select", "I,F401,UP"], ["format", "--quiet"]):
        arguments = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(PACKAGE / "x.py"), "-"]
        text = subprocess.run(arguments, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main(*, is_check: bool) -> int:
    stale = []
    for path, text in write_all(read_document()).items():
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale.append(str(path.relative_to(HERE)))
        if not is_check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
    for name in stale:
        print(f"{name} is {'not up to date' if is_check else 'written'}")
    return int(is_check and bool(stale))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[1]))
    sys.exit(main(is_check="--check" in sys.argv[1:]))
