"""Every error as problem+json (RFC 9457): those of Sightline, of FastAPI, of Starlette, and unexpected ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.core.errors import CollectionMissing, SightlineError, describe_fault
from app.core.types import ItemError

log = logging.getLogger(__name__)

CODES_BY_STATUS = {401: "unauthorized", 403: "forbidden", 404: "not_found", 413: "payload_too_large", 422: "validation"}
REQUEST_PLACES = ("body", "query", "path")  # left out of messages: clients know where they put a field
UNKNOWN_FIELD = "unknown_field"  # the type of pydantic's error; its context has the `name`
MAX_NAME_CHARS = 60  # of a field that a client made up
MAX_SHOWN_ERRORS = 5  # of one request


# The status and the body of an error in the shape of another system, from status, code and detail.
ErrorShape = Callable[[int, str, str], tuple[int, dict[str, Any]]]
ERROR_SHAPES: dict[str, ErrorShape] = {}  # by path; scope["error_shape"] comes first


class Problem(BaseModel):
    """An error (RFC 9457). `code` is stable; `retryable` says whether the same request may succeed later."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not found",
                    "status": 404,
                    "detail": "there is no picture 'our-cat' in 'default'",
                    "code": "not_found",
                    "request_id": "0f3a5c1d2b4e46f7a8c9d0e1f2a3b4c5",
                    "retryable": False,
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    retryable: bool
    image_id: str | None = Field(None, exclude_if=lambda id: id is None, description="The picture that failed.")


PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
RESPONSES: dict[int | str, dict[str, Any]] = {"default": {"description": "Error", "content": PROBLEM_CONTENT}}


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(SightlineError, _handle_sightline_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)
    app.add_exception_handler(Exception, _handle_unexpected_error)


def problem_response(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    retryable: bool = False,
    retry_after: int | None = None,
) -> JSONResponse:
    request.scope["refused"] = code  # for the metrics
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
    shape: ErrorShape | None = request.scope.get("error_shape") or ERROR_SHAPES.get(request.scope["path"])
    if shape is not None:
        status, body = shape(status, code, detail.encode("utf-8", "replace").decode())
        return JSONResponse(body, status, headers)
    return respond(make_problem(request, status, code, title, detail, retryable=retryable), headers)


def make_problem(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    retryable: bool = False,
    image_id: str | None = None,
) -> Problem:
    return Problem(
        title=title,
        status=status,
        detail=detail.encode("utf-8", "replace").decode(),
        code=code,
        request_id=request.scope.get("request_id", ""),
        retryable=retryable,
        image_id=image_id,
    )


def failed_problem(request: Request, image_id: str, error: ItemError) -> Problem:
    """The error of a picture that was stored and could not be embedded."""
    request.scope["refused"] = error.code
    return make_problem(request, 422, error.code, "The picture failed", error.detail, image_id=image_id)


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(problem.model_dump(), problem.status, headers, media_type="application/problem+json")


async def _handle_sightline_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SightlineError)
    return error_response(request, error, suggest_collection(request, error))


def suggest_collection(request: Request, error: SightlineError) -> str:
    """The end of a sentence about a collection that is not there: one of nearly its name that the key may see."""
    principal = request.scope.get("principal")
    bound = principal.collections if principal else None
    near = error.near if isinstance(error, CollectionMissing) else ()
    return next((f"; did you mean {name!r}?" for name in near if bound is None or name in bound), "")


def error_response(request: Request, error: SightlineError, hint: str = "") -> JSONResponse:
    return problem_response(
        request,
        error.status,
        error.code,
        error.title,
        error.detail + hint,
        retryable=error.retryable,
        retry_after=error.retry_after,
    )


async def _handle_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem_response(request, 422, "validation", "Invalid value", format_validation_errors(error.errors()))


async def _handle_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = CODES_BY_STATUS.get(error.status_code, "bad_request")
    answer = problem_response(request, error.status_code, code, str(error.detail), str(error.detail))
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


async def _handle_disconnect(request: Request, error: Exception) -> JSONResponse:
    """Nobody reads this answer. Without it a client that hangs up would be logged as an unexpected error."""
    return problem_response(request, 400, "bad_request", "Bad request", "the connection ended before the request did")


def is_cut_off(error: Exception) -> bool:
    """Whether this is Starlette's error for one of ours in the middle of an answer."""
    return isinstance(error, RuntimeError) and isinstance(error.__cause__, SightlineError)


async def _handle_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    if is_cut_off(error):
        log.warning("an answer was cut off: %s", error.__cause__)
    else:
        log.error("unexpected error", exc_info=error)
    return problem_response(request, 500, "internal", "Internal error", "something went wrong; the log has the details")


def format_validation_errors(errors: Sequence[Any]) -> str:
    """Pydantic's list of errors as one sentence, without the values that were sent."""
    parts = []
    for error in errors[:MAX_SHOWN_ERRORS]:
        steps = error.get("loc", ())
        if error.get("type") == UNKNOWN_FIELD:
            steps = (*steps, error["ctx"]["name"])
        where = ".".join(str(step) for step in (steps[1:] if steps and steps[0] in REQUEST_PLACES else steps))
        where = where or ("the body" if error.get("type") == "missing" else "")
        message = describe_fault(error)
        parts.append(f"{where}: {message}" if where else message)
    if len(errors) > MAX_SHOWN_ERRORS:
        parts.append(f"and {len(errors) - MAX_SHOWN_ERRORS} more")
    return "; ".join(parts)
