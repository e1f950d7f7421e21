"""Prometheus metrics over HTTP."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from tests.app.api.asking import upload_ready
from tests.support.servers import RunningServer, wait_until


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
    not_found = ("sightline_refusals_total", (("code", "not_found"),))
    before = samples(server)
    for n in range(3):
        server.http.get(f"/v1/images/counted-{n}")
    server.http.request("PROPFIND", "/some/odd/address")
    after = samples(server)
    for name in ("sightline_requests_total", "sightline_request_seconds_count"):
        assert after[name, labels] == before.get((name, labels), 0) + 3
    assert after[not_found] >= before.get(not_found, 0) + 4
    assert "PROPFIND" not in str(list(after))
    assert after["sightline_requests_in_flight", ()] >= 1  # this one
    assert after["sightline_connections", ()] >= 1
    assert after["process_resident_memory_bytes", ()] > 1 << 20
    assert not re.search("counted-|some/odd", str(list(after)))


def test_pictures_index_and_health_are_told(server: RunningServer) -> None:
    upload_ready(server)
    told = samples(server)
    stats = server.http.get("/v1/stats").json()
    assert told["sightline_ready", ()] == 1
    assert told["sightline_images", (("status", "ready"),)] >= stats["images"]["ready"] > 0
    assert told["sightline_index_vectors", (("target", "images"),)] >= stats["images"]["ready"]
    assert told["sightline_index_open", (("target", "images"),)] >= 1
    assert told["sightline_index_lag", (("target", "images"),)] == 0
    assert told["sightline_index_tail", (("target", "images"),)] >= stats["images"]["ready"]
    assert told["sightline_jobs", (("state", "running"),)] == 0
    assert told["sightline_oldest_waiting_seconds", ()] >= 0
    assert 0 < told["sightline_disk_free_bytes", ()] <= told["sightline_disk_bytes", ()]
    assert told["sightline_backup_last_success_timestamp_seconds", ()] == 0


def test_what_workers_count_reaches_the_server(server: RunningServer) -> None:
    upload_ready(server)

    def is_reported() -> bool:
        told = samples(server)
        counted = told["sightline_worker_pictures_total", (("outcome", "ready"),)]
        return counted > 0 and told["sightline_worker_memory_bytes", ()] > 1 << 20

    wait_until(is_reported, 60)
    told = samples(server)
    assert (told["sightline_workers", ()], told["sightline_workers_wanted", ()]) == (1, 1)
    assert told["sightline_worker_attempts_total", ()] > 0
    assert told["sightline_worker_batch_seconds_count", (("step", "encode"),)] > 0
    for process in ("server", "worker"):
        assert told["sightline_commit_seconds_count", (("process", process),)] > 0
    assert told["sightline_decode_seconds_count", (("process", "worker"),)] > 0
    assert told["sightline_fsync_seconds_count", (("process", "server"),)] > 0
    assert told["sightline_event_loop_lag_seconds_count", ()] > 0


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
    assert told["sightline_encoder_wait_seconds_count", (("kind", "texts"),)] > 0
    assert told["sightline_encoder_rows_total", (("kind", "texts"),)] > 0
    assert 0 < parts <= told["sightline_search_seconds_sum", (("stage", "total"),)]
    assert not [name for name, _ in told if name == "sightline_recall_at_10"]  # its indexes are exact
