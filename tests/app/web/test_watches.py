"""Watched folders above the jobs: how each stands, and the deletions that wait for a person."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.app.web.watched import Watched
from tests.support.servers import RunningServer, wait_until


def test_a_watched_folder_says_how_it_stands_and_its_deletions_are_confirmed(
    browser: Browser, empty: RunningServer
) -> None:
    http = empty.http
    http.post("/v1/collections", json={"name": "watched"}).raise_for_status()
    body = {"source": "client:laptop", "collection": "watched", "title": "<i>Pictures</i>"}
    id = http.post("/v1/watches", json=body).json()["id"]
    report = {"state": "held", "held": 3, "fault": "3 pictures are not deleted", "scanned": True}
    http.post(f"/v1/watches/{id}/changes", json={"report": report}).raise_for_status()
    watched = Watched(browser, empty.url)
    page = watched.open("?view=jobs&collection=watched")
    row = page.locator("#watch-list > li")
    expect(row.locator(".name")).to_have_text("<i>Pictures</i>")
    expect(row).to_contain_text("Deletions wait")
    expect(row).to_contain_text("0 files")
    expect(row).to_contain_text("3 pictures are not deleted")
    expect(page.locator("#no-jobs")).to_be_hidden()
    row.get_by_role("button", name="Delete 3 pictures").click()
    row.get_by_role("button", name="Really delete 3 pictures?").click()
    row.get_by_role("button", name="Pause").click()
    expect(row.locator(".state")).to_have_text("Paused")
    wait_until(lambda: http.get(f"/v1/watches/{id}").json()["confirmed"], 30)
    row.get_by_role("button", name="Resume").click()
    expect(row.locator(".state")).not_to_have_text("Paused")
    http.delete(f"/v1/watches/{id}").raise_for_status()
    expect(row).to_have_count(0)
    expect(page.locator("#no-jobs")).to_be_visible()
    watched.context.close()
    assert watched.faults == []
