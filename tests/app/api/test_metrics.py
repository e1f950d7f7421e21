"""Prometheus metrics over HTTP."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from tests.app.api.asking import added
from tests.servers import RunningServer


def samples(server: RunningServer) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels."""
    response = server.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(response.text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_requests_are_counted_by_route_never_by_address(server: RunningServer) -> None:
    labels = (("method", "GET"), ("route", "/v1/images/{id}"), ("status", "404"))
    before = samples(server).get(("sightline_requests_total", labels), 0)
    for n in range(3):
        server.http.get(f"/v1/images/counted-{n}")
    server.http.get("/some/odd/address")
    after = samples(server)
    assert after["sightline_requests_total", labels] == before + 3
    assert not re.search("counted-|some/odd", str(list(after)))


def test_pictures_index_and_health_are_told(server: RunningServer) -> None:
    added(server)
    told = samples(server)
    stats = server.http.get("/v1/stats").json()
    assert told["sightline_ready", ()] == 1
    assert told["sightline_images", (("status", "ready"),)] == stats["images"]["ready"]
    assert told["sightline_index_vectors", (("target", "images"),)] == stats["images"]["ready"]
    assert told["sightline_index_lag", (("target", "images"),)] == 0


def test_searches_are_timed_by_stage_a_batch_once(server: RunningServer) -> None:
    def counts() -> dict[str, float]:
        told = samples(server)
        stages = ("encode", "search", "fetch", "total")
        return {one: told.get(("sightline_search_seconds_count", (("stage", one),)), 0) for one in stages}

    before = counts()
    server.http.get("/v1/search", params={"q": "red"})
    server.http.post("/v1/search/batch", json={"searches": [{"query": [{"text": "red"}]}] * 3})
    assert counts() == {stage: count + 2 for stage, count in before.items()}
    told = samples(server)
    parts = sum(told["sightline_search_seconds_sum", (("stage", one),)] for one in ("encode", "search", "fetch"))
    assert 0 < parts <= told["sightline_search_seconds_sum", (("stage", "total"),)]
    assert not [name for name, _ in told if name == "sightline_recall_at_10"]  # its indexes are exact
