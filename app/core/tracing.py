"""OpenTelemetry spans: a request with its stages, a worker's batch with its steps.

They are off, and no part of OpenTelemetry is imported, until `configure` is called. The SDK reads its own standard
variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`...). No span holds a query, a name
or an address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from app.core.errors import StartupError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Attributes = Mapping[str, str | int | float]
_NO_SPAN = nullcontext()
_provider: TracerProvider | None = None


def configure(service: str) -> None:
    """Send the spans of this process under the name `service`. Raises StartupError if the extra is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise StartupError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: "
            "pip install 'sightline-search[otel]'"
        ) from None
    resource = Resource({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())  # the environment's name wins
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    set_provider(provider)


@contextmanager
def send_spans(service: str, *, on: bool) -> Iterator[None]:
    """If `on`, send the spans of this process inside the `with`, the last of them at its end."""
    if not on:
        yield
        return
    configure(service)
    try:
        yield
    finally:
        shut_down()


def is_on() -> bool:
    """Whether spans are sent."""
    return _provider is not None


def set_provider(provider: TracerProvider | None) -> None:
    """Send spans to this provider from now on; None sends none."""
    global _provider
    _provider = provider


def shut_down() -> None:
    """Send the spans that are left, and end."""
    if _provider is not None:
        _provider.shutdown()
        set_provider(None)


def span(name: str, attributes: Attributes | None = None) -> AbstractContextManager[object]:
    """A span for the time inside the `with`, below the span that is open in this context."""
    if _provider is None:
        return _NO_SPAN
    return _provider.get_tracer("sightline").start_as_current_span(name, attributes=attributes)


def set_span_attributes(attributes: Attributes) -> None:
    """Add attributes to the span that is open in this context."""
    if _provider is not None:
        from opentelemetry import trace

        trace.get_current_span().set_attributes(attributes)
