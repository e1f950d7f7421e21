"""Calls of a route whose request brings nothing unusual, without FastAPI's solver.

FastAPI solves the dependencies of a route anew at each request, asks for each of its parameters, and opens stacks of
clean-ups: half of what the event loop does for a search. What a route needs is known when it is made, so the steps are
listed once. A request whose parameters are not right goes through FastAPI, which says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from fastapi import Request, Response
from fastapi._compat import ModelField, field_annotation_is_sequence
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import ResponseValidationError
from fastapi.security.base import SecurityBase

IMMUTABLE = (type(None), bool, int, float, str)


@dataclass(frozen=True, slots=True)
class _Step:
    """A function with what it takes: parameters of the address, results of the steps before, and the request."""

    call: Callable[..., Any]
    defaults: Mapping[str, Any]
    parameters: tuple[ModelField, ...]
    results: tuple[tuple[str, int], ...]
    request: str | None


class DirectCall:
    """The steps of a route: its dependencies, each once, and last its own function, which may take a body of JSON."""

    def __init__(self, steps: list[_Step], answer: ModelField | None, body: ModelField | None) -> None:
        self._steps = steps
        self._answer = answer
        self._body = body
        fields = [field for step in steps for field in step.parameters]
        self._required = {field.alias for field in fields if field.field_info.is_required()}
        self._lists = {field.alias for field in fields if field_annotation_is_sequence(field.field_info.annotation)}

    async def run(self, request: Request, body: Any = None) -> Response | None:
        """The answer; None for a request that FastAPI has to see. `body` is parsed."""
        sent = self._read(request)
        if not self._required <= sent.keys():
            return None
        arguments = []
        for step in self._steps:
            values = dict(step.defaults)
            for field in step.parameters if sent else ():
                if field.alias in sent:
                    values[field.name], errors = field.validate(sent[field.alias], {}, loc=("query", field.alias))
                    if errors:
                        return None
            arguments.append(values)
        if self._body is not None:
            arguments[-1][self._body.name], errors = self._body.validate(body, {}, loc=("body",))
            if errors:
                return None
        found: list[Any] = []
        for step, values in zip(self._steps, arguments, strict=True):
            for name, n in step.results:
                values[name] = found[n]
            if step.request is not None:
                values[step.request] = request
            found.append(await step.call(**values))
        return self._render(found[-1])

    def _read(self, request: Request) -> dict[str, Any]:
        """The parameters of the address."""
        query = request.query_params
        return {name: query.getlist(name) if name in self._lists else query[name] for name in query}

    def _render(self, result: Any) -> Response:
        if isinstance(result, Response):
            return result
        assert self._answer is not None
        value, errors = self._answer.validate(result, {}, loc=("response",))
        if errors:
            raise ResponseValidationError(errors=errors, body=result)
        return Response(self._answer.serialize_json(value), media_type="application/json")


def compile_call(route: Any) -> DirectCall | None:
    """The steps of a route; None for one that needs more than parameters of its address, one body and the request.

    `route` is FastAPI's, with the dependencies of its application.
    """
    takes = [("GET", 0), ("POST", 1)]
    bodies = route.dependant.body_params
    is_plain = any(route.methods == {method} and len(bodies) == many for method, many in takes)
    if bodies != [field for field in (route.body_field,) if field is not None]:  # one whose fields are parameters
        return None
    is_rendered = route.response_field is not None and isinstance(route.response_class, DefaultPlaceholder)
    steps: list[_Step] = []
    if is_plain and route.status_code is None and is_rendered and _add_steps(route.dependant, steps, {}) is not None:
        return DirectCall(steps, route.response_field, bodies[0] if bodies else None)
    return None


def _add_steps(dependant: Dependant, steps: list[_Step], known: dict[Any, int]) -> int | None:
    """Append what is not in the list yet; the number of the dependant's own step, None if it has none."""
    call = dependant.call
    if not _is_direct(dependant) or call is None:
        return None
    results = []
    for one in dependant.dependencies:
        if isinstance(one.call, SecurityBase) and one.name is None:
            continue  # for the OpenAPI document; AccessControl has looked at the key
        n = known.get(one.call) if one.call in known else _add_steps(one, steps, known)
        if n is None:
            return None
        if one.name is not None:
            results.append((one.name, n))
    fields = tuple(dependant.query_params)
    defaults = {field.name: field.default for field in fields if not field.field_info.is_required()}
    if not all(isinstance(value, IMMUTABLE) for value in defaults.values()):
        return None
    steps.append(_Step(call, defaults, fields, tuple(results), dependant.request_param_name))
    known[call] = len(steps) - 1
    return known[call]


def _is_direct(dependant: Dependant) -> bool:
    """Whether it is a coroutine function that takes nothing but parameters of the address and the request."""
    others = (
        *(dependant.path_params, dependant.header_params, dependant.cookie_params),
        *(dependant.response_param_name, dependant.background_tasks_param_name, dependant.security_scopes_param_name),
        *(dependant.http_connection_param_name, dependant.concurrency),
    )
    return iscoroutinefunction(dependant.call) and dependant.use_cache and not any(others)
