"""What Schemathesis checks beside its own list, and the rules that an OpenAPI document cannot say.

Every error is problem+json with a documented code. `RULES` are the refusals that a request of the right form may get;
`before_call` and the pictures make such requests rare.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.openapi.checks import AllowHeaderMismatch, RejectedPositiveData

from app.storage.filters import model
from tests.support.pictures import picture

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http.md"
CODES = set(re.findall(r"^\| `([a-z_]+)` \| (?:[\d, ]+|–) \|", PAGE.read_text("utf-8"), re.MULTILINE))
MEMBERS = {"type", "title", "status", "detail", "code", "request_id", "retryable"}

FIELDS = "|".join(name for names in model.FIELDS.values() for name in names)
FILTERED = "GET /v1/images|GET /v1/search|POST /v1/search(/image)?|POST /v1/images/delete"
PARTS = "POST /v1/search"
ARRANGED = "GET /v1/images|(GET|POST) /v1/search|POST /v1/search/image"
SETS = "POST /v1/(evaluations|heads)"
# The calls, what they answer, and why the schema of the request does not say so.
RULES = [
    (FILTERED, r"a filter may have \d+ groups and conditions", "they are counted at every depth"),
    (FILTERED, rf"filter\..*there is no field '({FIELDS})'", "which fields a filter has depends on the target"),
    (FILTERED, r"filter\..*there is no word in", "what a word is depends on Unicode's tables"),
    (FILTERED, r"filter\..*a range needs a bound", "null stands for a bound that is not used"),
    (FILTERED, r"filter\..*top_left lies south", "two numbers are compared"),
    (FILTERED, r"filter\..*there is no time", "some dates and times are not on the calendar"),
    ("POST /v1/images/delete", r"filter: this one has no condition", "a condition may lie in any of three lists"),
    ("POST /v1/(images|search/image|classify|match)", r"is not a picture|this is an? ", "the bytes say what a file is"),
    ("POST /v1/images", r"metadata (is not JSON|must be)", "the text of a form is JSON"),
    ("POST /v1/images/bulk", r"left_out(\.| is not JSON| must be)", "the text of a form is JSON"),
    (
        "(GET|POST) /v1/search(/image)?",
        r"mode '\w+': ",
        "words are compared where the query, the target and exact permit it",
    ),
    ("(GET|POST) /v1/search(/batch|/image)?", r"effort '\w+'", "exact and params say the same in other words"),
    ("POST /v1/search/image", r"filter( is not JSON|:)", "the text of a form is JSON"),
    ("POST /v1/classify", r"labels: required, and not there", "Schemathesis sends an empty field beside a picture"),
    ("POST /v1/match", r"text: required, and not there", "Schemathesis sends an empty field beside a picture"),
    ("(GET|POST) /v1/search", r"templates", "how many texts they make depends on the query, and exact has none"),
    (PARTS, r"a vector of this model has|the vector must be finite", "the model decides on the length of vectors"),
    (PARTS, r"cancel each other out", "the sum of the weighted parts is zero"),
    (PARTS, r"not valid base64|a data URI must be|the file is empty|is not a picture|this is a", "base64 of a picture"),
    (PARTS, r"has no vector \(yet\)", "the picture is still being embedded, or has failed"),
    ("POST /v1/images/ingest", r"this server does not fetch|the server may not read", "the operator does not allow it"),
    (SETS, r"the server may not read|pictures belongs to", "the operator does not allow it"),
    (SETS, r"the set|a set of pairs|no column|first line|row|it is UTF-16", "what a file holds"),
    (ARRANGED, r"(order_by|group_by|facets): ", "which fields there are depends on the target"),
    (ARRANGED, r"offset \+ k must be", "two numbers are added up"),
    ("POST /v1/search/batch", r"the searches of one call may", "their hits and parts are added up"),
    ("GET /v1/images", r"a list with vectors has", "a limit depends on another parameter"),
    ("POST /v1/reembed", r"model", "which models there are, and which one serves"),
    ("DELETE /v1/collections/.*", r"is always there", "the default collection stays"),
    ("GET /v1/duplicates", r"threshold must be", "each kind has a scale of its own"),
    ("GET /v1/(duplicates|images)", r"the cursor (belongs|is not one)", "a cursor belongs to a listing"),
    ("GET /v1/images|(GET|POST) /v1/search(/batch|/image)?", r"after: ", "a token is that of a write that was"),
    (
        "(GET|POST) /v1/search(/batch)?|GET /v1/images/[^/]+/explain",
        r"today: a day is",
        "days have bounds, which no format of JSON Schema has",
    ),
    ("POST /v1/images/[^/]+/ask", r"is there twice|by: no captioner", "answers may be the same; what there is"),
    ("PUT /v1/collections/[^/]+/labels", r"is there twice", "labels that differ in their texts alone are the same"),
    ("PUT /v1/collections/[^/]+/labels", r"begins or ends with a space", "what a space is depends on Unicode's tables"),
    ("POST /v1/enrichments", r"is off here|filter", "the operator does not allow it; as other filters"),
    (
        "(POST|PATCH) /v1/saved-searches.*",
        r"",
        "the parts of the search in it depend on each other",
    ),
    ("POST /v1/watches/.*", r"", "what a change needs depends on its kind"),
    (
        "POST /v1/videos",
        r"is not a video|metadata (is not JSON|must be)",
        "the bytes decide; the text of a form is JSON",
    ),
    ("POST /v1/watches", r"the server may not read|does not read", "the operator does not allow it"),
    ("POST /v1/watches", r"belongs to (client:NAME|folder:PATH)", "which fields a watch has depends on its source"),
    ("POST /v1/watches/[^/]+/(scan|confirm|pause|resume)", r"the server does not read|held", "what a folder is at"),
    (
        "POST /v1/watches/[^/]+/files",
        r"send a change of the kind put|change is not JSON",
        "two lists; the text of a form",
    ),
    ("POST /v1/watches/[^/]+/(changes|files)", r"9223372036854775808", "floats of JSON are rounded"),
    ("GET /v1/watches/[^/]+/files", r"the cursor is not one", "a cursor belongs to a listing"),
    ("POST /v1/images/ingest", r"\w+ does not belong to the source|items belong to", "which fields a source has"),
]
EXCEPTIONS = [(re.compile(calls), re.compile(answer)) for calls, answer, _ in RULES]
# A picture may be called `bulk`: its address has the methods of a picture, too.
NAMED_LIKE_PICTURES = {f"/v1/images/{name}" for name in ("bulk", "ingest", "known", "delete")}
OF_PICTURES = {"GET", "PATCH", "DELETE"}

VALID = {"cursor": "MTA", "filter": '{"must": []}'}  # the text of a parameter follows rules that are none of a schema's
_addresses = itertools.count(1)

for kind in ("png", "jpeg", "webp", "gif", "avif"):  # the bytes say what a picture is, not its type
    schemathesis.openapi.media_type(f"image/{kind}", st.integers(0, 255).map(lambda seed: picture(seed=seed)))


@schemathesis.serializer("application/x-ndjson")
def write_lines(context: schemathesis.SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """A request of the right form says each thing once, and uses cursors and filters that are some.

    Every request comes from another address, as if by a proxy: one address may try 10 wrong keys a minute.
    """
    n = next(_addresses)
    case.headers["X-Forwarded-For"] = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
    if case.meta is None or not case.meta.generation.mode.is_positive or not case.query:
        return
    body = case.body if isinstance(case.body, dict) else {}
    query = {name: VALID.get(name, value) for name, value in case.query.items() if name not in body}
    if "priority" in (*query, *body):
        query.pop("job", None)  # a job that exists has its own
    if query != case.query:
        case.query = query


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Failure, case: schemathesis.Case[Any], response: schemathesis.Response
) -> bool:
    """Whether the failure is one. It is none where the server follows a rule that the document cannot say."""
    call = f"{case.method.upper()} {case.path}"
    if response.status_code in (413, 431) and isinstance(failure, RejectedPositiveData | AcceptedNegativeData):
        return False  # what headers and a body may cost is decided before they are read
    if isinstance(failure, RejectedPositiveData):
        detail = json.loads(response.content)["detail"]
        return not any(calls.fullmatch(call) and answer.search(detail) for calls, answer in EXCEPTIONS)
    if isinstance(failure, AcceptedNegativeData) and call == "POST /v1/search/batch":
        # A search that would be refused alone is an error among the answers.
        return not any("error" in answer for answer in json.loads(response.content)["answers"])
    if isinstance(failure, AcceptedNegativeData) and re.fullmatch(r"POST /v1/watches/[^/]+/(files|changes)", call):
        return False  # an empty field of a form is none, and so is no entry of a list
    if failure.title.startswith("SSE stream"):
        return False  # it compares the events that it has parsed with the schema of their text
    if isinstance(failure, AllowHeaderMismatch) and case.path in NAMED_LIKE_PICTURES:
        return bool(failure.missing_methods) or set(failure.undocumented_methods) != OF_PICTURES
    return True


@schemathesis.check
def problem(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]) -> None:
    """A refusal has the one shape of refusals, and says when to come back where that helps."""
    if response.status_code < 400 or (case.path == "/readyz" and response.status_code == 503):
        return
    kind = response.headers.get("content-type", [""])[0]
    assert kind == "application/problem+json", f"the error is {kind}"
    if case.method.upper() == "HEAD":
        return
    told = json.loads(response.content)
    assert set(told) - {"image_id"} == MEMBERS, f"the error has {sorted(told)}"
    assert told["code"] in CODES, f"the code {told['code']} is not documented"
    assert told["status"] == response.status_code, "the status differs"
    if response.status_code in (429, 503):
        assert response.headers.get("retry-after"), "there is no Retry-After"
