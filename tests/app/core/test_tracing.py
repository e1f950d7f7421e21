from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.core import tracing
from app.core.settings import Settings

Spans = Callable[[], dict[str, ReadableSpan]]


@pytest.fixture
def spans() -> Iterator[Spans]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.set_provider(provider)
    yield lambda: {one.name: one for one in exporter.get_finished_spans()}
    tracing.shut_down()


def test_spans_lie_below_each_other_and_hold_what_was_said(spans: Spans) -> None:
    with tracing.span("request", {"http.request.method": "GET"}):
        with tracing.span("search", {"questions": 2}):
            pass
        tracing.set_span_attributes({"http.response.status_code": 200})
    found = spans()
    outer, inner = found["request"], found["search"]
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id
    assert dict(outer.attributes or {}) == {"http.request.method": "GET", "http.response.status_code": 200}
    assert dict(inner.attributes or {}) == {"questions": 2}


def test_a_span_that_failed_says_so(spans: Spans) -> None:
    with pytest.raises(ValueError, match="broken"), tracing.span("batch"):
        raise ValueError("broken")
    assert not spans()["batch"].status.is_ok


def test_without_a_provider_a_span_is_nothing() -> None:
    with tracing.span("search", {"questions": 1}):
        tracing.set_span_attributes({"more": 1})
    assert tracing.span("one") is tracing.span("two")
    tracing.shut_down()


def test_spans_are_sent_where_the_environment_says_under_the_name_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = Thread(target=collector.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        tracing.configure("sightline-worker")
        with tracing.span("batch"):
            pass
        tracing.shut_down()  # sends what is left
        collector.shutdown()
        thread.join()
    ((path, body),) = sent
    assert path == "/v1/traces"
    assert b"sightline-worker" in body
    assert b"batch" in body


def test_it_is_on_where_a_standard_variable_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    assert not Settings().is_tracing_on
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")
    assert Settings().is_tracing_on
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not Settings().is_tracing_on


def test_when_off_nothing_of_it_is_imported() -> None:
    script = (
        "import sys; from app.core import tracing\nwith tracing.span('x'): tracing.set_span_attributes({'a': 1})\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
        "import app.api.middleware, app.worker.embed\n"  # the web framework imports the interface where it finds it
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    assert told.stdout.strip().split() == ["[]", "[]"]
