from __future__ import annotations

import pytest

from app.core.metrics import DEATHS, KINDS, OUTCOMES, STAGES, STEPS, ProcessMetrics


def test_what_was_counted_is_shown() -> None:
    metrics = ProcessMetrics()
    told = metrics.registry.get_sample_value
    assert set(STAGES) == {"encode", "search", "fetch", "total"}
    metrics.observe_search({"encode": 0.25, "search": 0.001, "total": 0.3})
    metrics.observe_search({"encode": 0.75, "search": 0.002, "total": 0.8})
    metrics.ghost_hits.labels("images").inc(3)
    metrics.ghost_hits.labels("images").inc(2)
    metrics.ghost_hits.labels("texts").inc(0)
    assert told("sightline_search_seconds_sum", {"stage": "encode"}) == 1.0
    assert told("sightline_search_seconds_count", {"stage": "search"}) == 2
    assert told("sightline_search_seconds_bucket", {"stage": "search", "le": "0.001"}) == 1
    assert told("sightline_ghost_hits_total", {"target": "images"}) == 5
    assert told("sightline_ghost_hits_total", {"target": "texts"}) == 0


def test_passes_commits_decoding_and_builds_are_counted_under_their_process() -> None:
    metrics = ProcessMetrics("worker")
    told = metrics.registry.get_sample_value
    metrics.encoder_waits.labels("texts").observe(0.5)
    metrics.observe_encoder_pass("texts", 3, 0.25)
    with metrics.commits.time(), metrics.fsyncs.time():
        pass
    metrics.decodes.observe(2.0)
    metrics.count_decoder_death("memory")
    metrics.observe_build(12.0, ok=False)
    assert told("sightline_encoder_wait_seconds_sum", {"kind": "texts"}) == 0.5
    assert told("sightline_encoder_rows_total", {"kind": "texts"}) == 3
    assert told("sightline_commit_seconds_count", {"process": "worker"}) == 1
    assert told("sightline_commit_seconds_count", {"process": "server"}) is None
    assert told("sightline_fsync_seconds_count", {"process": "worker"}) == 1
    assert told("sightline_decode_seconds_sum", {"process": "worker"}) == 2.0
    assert told("sightline_decode_deaths_total", {"process": "worker", "cause": "memory"}) == 1
    assert told("sightline_index_builds_total", {"outcome": "failed"}) == 1
    assert told("sightline_index_build_seconds") == 12.0
    assert (told("sightline_index_build_timestamp_seconds", {"outcome": "failed"}) or 0) > 0
    assert told("sightline_index_build_timestamp_seconds", {"outcome": "ok"}) == 0


def test_a_step_that_fails_is_timed_too() -> None:
    metrics = ProcessMetrics("worker")
    with pytest.raises(OSError), metrics.steps.labels("commit").time():  # noqa: PT011
        raise OSError
    assert metrics.registry.get_sample_value("sightline_worker_batch_seconds_count", {"step": "commit"}) == 1


def test_every_series_is_there_before_the_first_event_and_no_time_of_creation() -> None:
    text = ProcessMetrics().text()
    for values in (STAGES, KINDS, DEATHS, STEPS, OUTCOMES):
        for value in values:
            assert f'="{value}"' in text
    assert "_created" not in text
