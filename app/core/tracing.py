"""Spans by OpenTelemetry, for those who collect them: a request with its stages, a worker's batch with its steps.

Off, and nothing of it imported, unless `configure` is told otherwise. The SDK reads its own standard variables
(`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`...). No
span holds a query, a name or an address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from app.core.errors import StartupError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Attributes = Mapping[str, str | int | float]
_NOTHING = nullcontext()
_provider: TracerProvider | None = None


def configure(service: str) -> None:
    """Send spans of this process under the name `service`. Raises StartupError where the extra is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise StartupError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: pip install 'sightline[otel]'"
        ) from None
    named = Resource({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())  # a name of the environment wins
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    set_provider(provider)


@contextmanager
def send_spans(service: str, *, on: bool) -> Iterator[None]:
    """Send spans of this process inside the `with`, if `on`; those that are left, at its end."""
    if not on:
        yield
        return
    configure(service)
    try:
        yield
    finally:
        shut_down()


def set_provider(provider: TracerProvider | None) -> None:
    """Send spans to this provider from now on; None sends none."""
    global _provider
    _provider = provider


def shut_down() -> None:
    """Send what has not been sent, and end."""
    if _provider is not None:
        _provider.shutdown()
        set_provider(None)


def span(name: str, attributes: Attributes | None = None) -> AbstractContextManager[object]:
    """A span for what happens inside the `with`, below the one that is open in this context."""
    return _NOTHING if _provider is None else _span(_provider, name, attributes or {})


@contextmanager
def _span(provider: TracerProvider, name: str, attributes: Attributes) -> Iterator[object]:
    with provider.get_tracer("sightline").start_as_current_span(name, attributes=attributes) as begun:
        yield begun


def set_span_attributes(attributes: Attributes) -> None:
    """Say more of the span that is open in this context."""
    if _provider is not None:
        from opentelemetry import trace

        trace.get_current_span().set_attributes(attributes)
