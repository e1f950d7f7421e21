"""What fails in the middle of an answer cuts it off, so that nobody takes it for whole; the log gets one line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.api.app import create_app
from app.api.routes import jobs as routes
from app.core.settings import Settings
from app.core.types import ItemError, ItemStatus
from app.service.service import Service, open_service
from app.storage.tables import job_control, jobs
from tests.support.makers import new_job


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = open_service(Settings(data_dir=tmp_path / "data", model="colours", workers=0))
    yield service
    service.close()


def test_a_report_of_a_job_that_is_deleted_meanwhile_is_cut_off(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(routes, "PAGE", 1)
    database = service.library.database
    id = new_job(database)
    for _ in range(3):
        database.write(lambda c: jobs.add_item(c, id, "x", ItemStatus.FAILED, error=ItemError("timeout", "x")))
    database.write(lambda c: jobs.finish_if_complete(c, id))
    path = f"/v1/jobs/{id}/items"
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"format=ndjson"}
    headers, client = [(b"host", b"localhost")], ("127.0.0.1", 1)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 2:
            await asyncio.to_thread(database.write, lambda c: job_control.delete_ended(c, id, "9", 10))

    caplog.set_level(logging.WARNING)
    asyncio.run(create_app(service)({**scope, "headers": headers, "client": client, "asgi": {}}, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 200
    assert sent[1]["more_body"] is True
    assert [record.getMessage() for record in caplog.records] == [f"an answer was cut off: there is no job {id!r}"]
