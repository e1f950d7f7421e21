"""A picture that is replaced or deleted while it is read: its new bytes or 404, never a cut answer or a false 410."""

from __future__ import annotations

from pathlib import Path

from bench.reads import RIGHT, read_beside_changes, serve, view_twice


def test_reads_beside_replaces_and_deletes_are_whole(tmp_path: Path) -> None:
    with serve(tmp_path) as (http, read_log):
        outcomes, changes = read_beside_changes(http, 800)
        first, second = view_twice(http)
        log = read_log()
    assert set(outcomes) <= RIGHT, outcomes
    assert outcomes["whole"] > 400
    assert changes > 20
    assert "Traceback" not in log
    assert second <= 0.05 * first
