"""The dashboard and the alerts of deploy/: every expression parses and uses existing metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.support.servers import RunningServer

ROOT = Path(__file__).parent.parent.parent
DASHBOARD = ROOT / "deploy/grafana/sightline.json"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
RUNBOOK = (ROOT / "docs/howto/monitor.md").read_text("utf-8")
SCRAPE = {"up"}  # Prometheus' own


@cache
def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return read


@cache
def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield (place, PromQL) of every expression, with values in place of Grafana's variables."""
    for alert in alerts():
        yield alert["alert"], alert["expr"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        if (below := getattr(node, name, None)) is not None:
            yield from selectors(below)
    for below in getattr(node, "args", None) or []:
        yield from selectors(below)


@pytest.fixture(scope="module")
def exposed_metrics(server: RunningServer) -> dict[str, set[str]]:
    """Every metric name of a server, with its documented labels (tests/test_docs.py)."""
    server.http.get("/v1/stats")
    text = server.http.get("/metrics").text
    known: dict[str, set[str]] = {}
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    rows = re.findall(
        r"^\| `(\w+)` \| \w+ \| (.*?) ?\|", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE
    )
    labels = {name: set(re.findall(r"`(\w+)`", told)) for name, told in rows}
    for name, kind in kinds.items():
        known[name] = labels[name]
        if kind == "histogram":
            known |= {name + suffix: labels[name] for suffix in ("_count", "_sum")}
            known[name + "_bucket"] = labels[name] | {"le"}
    return known


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_expression_parses_and_asks_for_what_there_is(
    where: str, expression: str, exposed_metrics: dict[str, set[str]]
) -> None:
    asked = list(selectors(promql_parser.parse(expression)))
    assert asked
    for one in asked:
        assert one.name in exposed_metrics or one.name in SCRAPE, one.name
        wanted = {matcher.name for matcher in one.matchers.matchers} - {"instance", "job"}
        assert wanted <= exposed_metrics.get(one.name, set()), (one.name, wanted)


def test_a_misspelt_metric_would_be_seen(exposed_metrics: dict[str, set[str]]) -> None:
    (one,) = selectors(promql_parser.parse("sum by (le) (rate(sightline_serch_seconds_bucket[5m])) > 1"))
    assert one.name == "sightline_serch_seconds_bucket"
    assert one.name not in exposed_metrics
    with pytest.raises(ValueError, match=r"\S"):
        promql_parser.parse("sum(rate(sightline_ready[5m])")


def test_every_alert_says_how_bad_it_is_and_has_its_entry_in_the_runbook() -> None:
    names = [alert["alert"] for alert in alerts()]
    assert names == re.findall(r"^### (Sightline\w+)$", RUNBOOK, re.MULTILINE)
    assert len(set(names)) == len(names)
    for alert in alerts():
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"]["summary"]


def test_the_dashboard_can_be_imported_anywhere() -> None:
    (asked,) = dashboard()["__inputs"]
    assert (asked["type"], asked["pluginId"]) == ("datasource", "prometheus")
    assert dashboard()["id"] is None
    assert dashboard()["schemaVersion"] == 42  # the last of this form
    source = {"type": "prometheus", "uid": f"${{{asked['name']}}}"}
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    used = {panel["type"] for panel in panels if panel["type"] != "row"}
    assert used == {one["id"] for one in dashboard()["__requires"] if one["type"] == "panel"}
    for panel in panels:
        for asking in (panel, *panel.get("targets", [])):
            assert panel["type"] == "row" or asking["datasource"] == source
    places = [(p["gridPos"]["x"], p["gridPos"]["y"], p["gridPos"]["w"], p["gridPos"]["h"]) for p in panels]
    cells = [(x + i, y + j) for x, y, w, h in places for i in range(w) for j in range(h)]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
