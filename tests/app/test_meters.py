from __future__ import annotations

from prometheus_client import CollectorRegistry

from app.meters import STAGES, Meters


def test_what_was_counted_before_it_was_registered_is_shown() -> None:
    meters, registry = Meters(), CollectorRegistry()
    assert set(STAGES) == {"encode", "search", "fetch", "total"}
    meters.searched({"encode": 0.25, "search": 0.001, "total": 0.3})
    meters.searched({"encode": 0.75, "search": 0.002, "total": 0.8})
    meters.ghosts("images", 3)
    meters.ghosts("images", 2)
    meters.ghosts("texts", 0)
    meters.register(registry)
    assert registry.get_sample_value("sightline_search_seconds_sum", {"stage": "encode"}) == 1.0
    assert registry.get_sample_value("sightline_search_seconds_count", {"stage": "search"}) == 2
    assert registry.get_sample_value("sightline_search_seconds_bucket", {"stage": "search", "le": "0.001"}) == 1
    assert registry.get_sample_value("sightline_ghost_hits_total", {"target": "images"}) == 5
    assert registry.get_sample_value("sightline_ghost_hits_total", {"target": "texts"}) == 0
