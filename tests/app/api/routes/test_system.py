"""Counts, models, health and the description of the interface."""

from __future__ import annotations

from pathlib import Path

from tests.app.api.asking import check_refusal, upload_ready
from tests.support.servers import RunningServer, wait_until


def test_stats_say_counts_index_and_model(own_server: RunningServer) -> None:
    before = own_server.http.get("/v1/stats").json()
    upload_ready(own_server)
    stats = own_server.http.get("/v1/stats").json()
    assert set(stats) >= {"collection", "images", "texts", "index", "model"}
    assert set(stats["images"]) == {"queued", "processing", "ready", "failed", "total"}
    assert stats["images"]["ready"] == before["images"]["ready"] + 1
    for target in ("images", "texts"):
        index = stats["index"][target]
        assert set(index) >= {"kind", "ntotal", "lag"}
        assert (index["kind"], index["lag"]) == ("exact", 0)
        assert index["recall"] is None  # nothing to measure: every vector was compared
    assert stats["index"]["images"]["ntotal"] == stats["images"]["ready"]
    assert (stats["model"]["name"], stats["model"]["d"]) == ("colours", 60)


def test_models_say_which_are_known_and_which_is_loaded(server: RunningServer) -> None:
    models = server.http.get("/v1/models").json()
    assert {"starter", "colours"} <= {model["name"] for model in models["models"]}
    assert models["loaded"]["name"] == "colours"


def test_health_is_ok_when_all_is_well(server: RunningServer) -> None:
    assert server.http.get("/livez").json() == {"status": "ok"}
    wait_until(lambda: server.http.get("/readyz").json()["status"] == "ok", 60)  # its workers are there
    ready = server.http.get("/readyz").json()
    assert (ready["status"], ready["reasons"], ready["faults"]) == ("ok", [], [])
    assert [check["name"] for check in ready["checks"]] == [
        *("model", "encoder", "index", "background", "database", "queue", "disk", "workers", "sandbox")
    ]
    assert all(check["ok"] for check in ready["checks"])
    assert "colours on cpu" in str(ready["checks"])


def test_the_interface_describes_itself(server: RunningServer) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    calls = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert calls >= {
        "POST /v1/images",
        "POST /v1/images/bulk",
        "GET /v1/jobs",
        "GET /v1/jobs/{id}",
        "GET /v1/jobs/{id}/items",
        "GET /v1/jobs/{id}/events",
        "GET /v1/images",
        "GET /v1/images/{id}",
        "PATCH /v1/images/{id}",
        "DELETE /v1/images/{id}",
        "GET /v1/images/{id}/file",
        "GET /v1/images/{id}/thumbnail",
        "POST /v1/texts",
        "GET /v1/texts/{id}",
        "DELETE /v1/texts/{id}",
        "GET /v1/search",
        "POST /v1/search",
        "POST /v1/search/image",
        "POST /v1/search/batch",
        "POST /v1/classify",
        "GET /v1/collections",
        "POST /v1/collections",
        "GET /v1/collections/{name}",
        "DELETE /v1/collections/{name}",
        "GET /v1/stats",
        "GET /v1/models",
        "GET /livez",
        "GET /readyz",
        "GET /metrics",
    }


def test_without_workers_uploads_are_taken_and_processed_later(tmp_path: Path) -> None:
    data = tmp_path / "data"
    from tests.app.api.asking import make_picture

    with RunningServer(data, workers=0, max_queue=3) as server:
        ids = []
        for _ in range(3):
            response = server.upload(make_picture(), wait=0.2)
            assert (response.status_code, response.json()["status"]) == (202, "queued")
            ids.append(response.json()["id"])

        def is_full() -> bool:
            return server.upload(make_picture(), wait=0).status_code == 429

        wait_until(is_full, 30)
        problem = check_refusal(server.upload(make_picture(), wait=0), 429, "queue_full")
        ready = server.http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert [check["name"] for check in ready.json()["checks"] if not check["ok"]] == ["queue"]
        assert problem["retryable"]
        bulk = server.http.post("/v1/images/bulk", files={"files": ("a.png", make_picture())})
        check_refusal(bulk, 429, "queue_full")
        check_refusal(server.http.post("/v1/search", json={"query": [{"image_id": ids[0]}]}), 422, "validation")
    with RunningServer(data) as server:
        for id in ids:
            wait_until(lambda id=id: server.http.get(f"/v1/images/{id}").json()["status"] == "ready", 20)
