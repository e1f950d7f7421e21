"""The view of the jobs: live by server-sent events, a reason for each failure, retry where the server offers it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from playwright.sync_api import Browser, Route, expect

from tests.app.web.watched import Watched
from tests.support.pictures import picture
from tests.support.servers import RunningServer


def answer_with(route: Route, body: str) -> None:
    route.fulfill(body=body, content_type="application/json")


def test_jobs_say_what_became_of_them_and_for_each_failure_why(browser: Browser, empty: RunningServer) -> None:
    files = [("good.png", picture("blue", seed=501)), ("<i>bad</i>.png", b"no picture")]
    files += [(f"{n}.txt", b"text") for n in range(59)]
    failed = empty.wait_job(empty.bulk(files)["id"])
    assert failed["failed"] == 60
    watched = Watched(browser, empty.url)
    page = watched.open()
    page.get_by_role("link", name="Activity").click()
    expect(page).to_have_url(re.compile(r"\?view=jobs$"))
    job = page.locator(".job").first
    expect(job.locator(".name")).to_have_text("good.png and 60 more")
    expect(job).to_contain_text("Done, with failures")
    expect(job).to_contain_text("1 added · 60 failed")
    job.get_by_role("button", name="Show why 60 failed").click()
    reason = job.locator(".failures > li")
    expect(reason).to_have_count(1)
    expect(reason).to_contain_text("not a picture of a known format")
    expect(reason).to_contain_text("60 files")
    expect(reason.locator("ul li").first).to_have_text("<i>bad</i>.png")
    reason.get_by_role("button", name="Show 55 more").click()
    expect(reason.locator("ul li")).to_have_count(60)
    expect(job.get_by_role("button", name="Retry failed items")).to_be_hidden()  # they would fail again
    job.get_by_role("button", name="Hide the reasons").click()
    expect(job.locator(".failures")).to_be_hidden()
    again = empty.wait_job(empty.bulk([("good.png", picture("blue", seed=501))])["id"])
    assert again["duplicates"] == 1
    expect(page.locator(".job").first).to_have_attribute("data-state", "succeeded")  # nothing is wrong about that
    expect(page.locator(".job .name").first).to_have_text("good.png")
    expect(page.locator(".job").first.get_by_role("link", name="Show the picture")).to_be_hidden()  # it added none
    job = page.locator(".job").nth(1)
    expect(job.locator(".when")).to_have_text(re.compile(r"\d s$"))  # how long it took
    job.get_by_role("link", name="Show the picture").click()
    expect(page).to_have_url(re.compile(f"job={failed['id']}$"))
    expect(page.locator(".tile .caption")).to_have_text(["good.png"])
    page.go_back()
    expect(page.locator(".job").first).to_be_visible()
    page.go_back()
    expect(page.locator("#jobs")).to_be_hidden()
    expect(page.locator("#search-view")).to_be_visible()
    page.go_forward()
    expect(page.locator(".job").first).to_be_visible()
    watched.context.close()
    assert watched.faults == []


def test_a_running_job_moves_by_events_and_one_begun_elsewhere_appears(browser: Browser, tmp_path: Path) -> None:
    files = [(f"{n}.png", picture("green", seed=600 + n, size=(300, 200))) for n in range(60)]
    with RunningServer(tmp_path / "data", workers=0) as server:
        watched = Watched(browser, server.url)
        page = watched.open("/?view=jobs")
        expect(page.locator("#no-jobs")).to_be_visible()
        page.evaluate(
            """() => {
                window.seen = [];
                new MutationObserver(() => seen.push(document.querySelector(".job .status")?.textContent)).observe(
                    document.getElementById("job-list"), { subtree: true, childList: true, characterData: true });
            }"""
        )
        with page.expect_request("**/v1/jobs/*/events"):
            job = server.bulk(files)
        row = page.locator(".job")
        expect(row).to_have_attribute("data-id", job["id"])
        expect(row).to_contain_text("Waiting")
        named = {"SIGHTLINE_DATA_DIR": str(server.data_dir), "SIGHTLINE_MODEL": "colours"}
        worker = subprocess.Popen(
            [sys.executable, "-m", "app", "worker"], env={**os.environ, **named}, stderr=subprocess.DEVNULL
        )
        try:
            expect(row).to_contain_text("60 added", timeout=60_000)
        finally:
            worker.terminate()
            worker.wait(30)
        expect(row.get_by_role("progressbar")).to_be_hidden()
        said = [re.match(r"(\d+) of \d+ processed", text or "") for text in page.evaluate("seen")]
        counts = [int(found[1]) for found in said if found]
        assert counts == sorted(counts)
        watched.context.close()
        assert watched.faults == []


def test_retry_is_offered_where_it_may_succeed_and_to_a_key_that_may_write(
    browser: Browser, empty: RunningServer
) -> None:
    failed = empty.wait_job(empty.bulk([("x.png", b"no picture"), ("y.png", picture("red", seed=502))])["id"])
    for scope in ("search", "write"):
        watched = Watched(browser, empty.url)
        page = watched.page
        session = {"needed": True, "scope": scope, "name": "someone", "collections": None}
        page.route("**/v1/session", partial(answer_with, body=json.dumps(session)))
        again = {**failed, "state": "running", "failed": 0}
        page.route(f"**/v1/jobs/{failed['id']}/retry", partial(answer_with, body=json.dumps(again)))
        error = {"code": "timeout", "detail": "took too long"}  # another attempt may succeed
        items = {
            "items": [{"name": "x.png", "status": "failed", "image_id": None, "error": error}],
            "next_cursor": None,
        }
        page.route(f"**/v1/jobs/{failed['id']}/items?status=failed*", partial(answer_with, body=json.dumps(items)))
        watched.open("/?view=jobs")
        job = page.locator(f".job[data-id='{failed['id']}']")
        expect(job).to_contain_text("1 added · 1 failed")
        expect(job.get_by_role("link", name="Download the report")).to_be_visible()
        job.get_by_role("button", name="Show why").click()
        expect(job).to_contain_text("took too long")
        retry = job.get_by_role("button", name="Retry failed items")
        expect(retry).to_be_visible(visible=scope == "write")
        if scope == "write":
            with page.expect_request(f"**/v1/jobs/{failed['id']}/retry") as asked:
                retry.click()
            assert asked.value.method == "POST"
            expect(job).to_contain_text("1 added · 1 failed")  # what the real server says of it a moment later
        watched.context.close()
        assert watched.faults == []


def test_a_job_is_paused_and_goes_on(browser: Browser, empty: RunningServer) -> None:
    """What the server says of it is told here, so that it neither ends nor begins meanwhile."""
    done = empty.wait_job(empty.bulk([("p.png", picture("red", seed=503)), ("q.png", picture("red", seed=504))])["id"])
    job = {**done, "state": "running", "done": 1, "eta_s": 7300.0, "rate": 2.0, "finished_at": None}
    watched = Watched(browser, empty.url)
    page = watched.page

    def answer_control(route: Route) -> None:
        job["state"] = "paused" if route.request.url.endswith("pause") else "running"
        answer_with(route, json.dumps(job))

    page.route("**/v1/jobs?*", lambda route: answer_with(route, json.dumps({"jobs": [job]})))
    page.route("**/v1/jobs/*/events", lambda route: route.fulfill(status=200, content_type="text/event-stream"))
    page.route(re.compile("/v1/jobs/[0-9a-f]+/(pause|resume)$"), answer_control)
    watched.open("/?view=jobs")
    row = page.locator(".job")
    expect(row).to_contain_text("1 of 2 processed · 2/s · 2 h left")
    row.get_by_role("button", name="Pause").click()
    expect(row).to_have_attribute("data-state", "paused")
    expect(row.locator(".state")).to_have_text("Paused")
    expect(row.locator(".status")).to_have_text("1 of 2 processed")
    expect(row.get_by_role("progressbar")).to_be_visible()
    expect(row.get_by_role("button", name="Cancel")).to_be_visible()
    row.get_by_role("button", name="Resume").click()
    expect(row.locator(".state")).to_have_text("Running")
    watched.context.close()
    assert watched.faults == []
