"""A server and its worker send spans to a collector when OpenTelemetry's variables are set."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.app.api.asking import upload_ready
from tests.support.servers import RunningServer, wait_until


class Collector(ThreadingHTTPServer):
    """Receives spans by OTLP over HTTP, as (process, span)."""

    daemon_threads = True

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def find_spans(self, process: str, name: str) -> list[Any]:
        return [span for of, span in list(self.spans) if (of, span.name) == (process, name)]


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in sent.resource_spans:
            (process,) = (one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
            for scope in resource.scope_spans:
                self.server.spans += [(process, span) for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is worth a line."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as running:
        thread = Thread(target=running.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        yield running
        running.shutdown()
        thread.join()


def test_a_search_and_a_batch_are_told_step_by_step(collector: Collector, tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        upload_ready(server)
        answer = server.http.get("/v1/search", params={"q": "secret words"}, headers={"X-Request-ID": "traced-0001"})
        assert answer.status_code == 200
        wait_until(
            lambda: collector.find_spans("sightline", "fetch") and collector.find_spans("sightline-worker", "batch"), 60
        )
    (request,) = (
        span
        for span in collector.find_spans("sightline", "request")
        if any(one.value.string_value == "traced-0001" for one in span.attributes)
    )
    said = {one.key: one.value.string_value or one.value.int_value for one in request.attributes}
    assert said["http.route"] == "/v1/search"
    assert said["http.response.status_code"] == 200
    for name in ("encode", "search", "fetch"):
        (step,) = (span for span in collector.find_spans("sightline", name) if span.trace_id == request.trace_id)
        assert step.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= step.start_time_unix_nano
        assert step.end_time_unix_nano <= request.end_time_unix_nano
    batch = collector.find_spans("sightline-worker", "batch")[0]
    for name in ("decode", "encode", "commit"):
        assert any(step.parent_span_id == batch.span_id for step in collector.find_spans("sightline-worker", name))
    assert "secret" not in str(collector.spans)
