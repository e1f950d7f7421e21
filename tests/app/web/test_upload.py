"""Adding pictures: files, folders and archives, with a bar for each file and for the whole, and what went wrong."""

from __future__ import annotations

import io
import itertools
import json
import re
import zipfile
from pathlib import Path

from playwright.sync_api import Browser, FilePayload, Page, Request, Route, expect

from bench.picture_files import make_sample
from tests.app.web.watched import Watched, drop
from tests.support.pictures import picture
from tests.support.servers import RunningServer


def choose_files(page: Page, files: list[FilePayload]) -> None:
    """By the button, its dialog and the browser's own."""
    page.get_by_role("button", name="Add pictures").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("dialog").get_by_role("button", name="Choose pictures").click()
    chooser.value.set_files(files)


def png(name: str, seed: int) -> FilePayload:
    return FilePayload(name=name, mimeType="image/png", buffer=picture("blue", seed=seed))


def test_each_file_and_the_whole_have_their_progress_and_each_failure_its_reason(
    browser: Browser, empty: RunningServer
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("one.png", picture("red", seed=1))
        archive.writestr("<b>broken</b>.png", b"no picture")
    watched = Watched(browser, empty.url)
    page = watched.open()
    bad = FilePayload(name="bad.png", mimeType="image/png", buffer=b"no picture either")
    some = FilePayload(name="some.zip", mimeType="application/zip", buffer=out.getvalue())
    choose_files(page, [png("two.png", 2), bad, png("again.png", 2), some])
    card = page.locator(".upload")
    expect(card).to_contain_text("two.png and 3 more")
    expect(card.locator(".files b")).to_have_text(["two.png", "bad.png", "again.png", "some.zip"])
    expect(card.locator("> p")).to_have_text("2 added · 1 already there · 2 failed", timeout=60_000)
    expect(card.locator(".files")).to_be_hidden()
    reason = card.locator(".failures > li")
    expect(reason).to_have_count(1)  # both failed for the same
    expect(reason).to_contain_text("not a picture of a known format")
    expect(reason).to_contain_text("2 files")
    expect(reason.locator("ul li")).to_have_text(["bad.png", "<b>broken</b>.png"])
    card.get_by_role("link", name="Show the new pictures").click()
    expect(page).to_have_url(re.compile(r"\?job=[0-9a-f]{32}$"))
    expect(page.locator(".tile .caption")).to_have_text(["one.png", "two.png"])
    expect(page.locator("#filters")).to_contain_text("import: two.png and 3 more")
    expect(card.locator("> p .failed")).to_have_text("2 failed")
    card.get_by_role("button", name="Close").click()
    expect(page.locator("#uploads")).to_be_hidden()
    watched.context.close()
    assert watched.faults == []


def test_progress_is_what_was_sent(browser: Browser, empty: RunningServer) -> None:
    watched = Watched(browser, empty.url)
    page = watched.open()
    network = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 400_000}
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", slow)
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => {
                const all = [...document.querySelectorAll(".upload progress")].map(one => one.value);
                if (all.length === 4) seen.push(all);
            }).observe(document.getElementById("uploads"), { subtree: true, childList: true, attributes: true,
                characterData: true });
        }"""
    )
    noise = [FilePayload(name=f"{n}.png", mimeType="image/png", buffer=bytes([n]) * 300_000) for n in range(3)]
    choose_files(page, noise)
    expect(page.locator(".upload > p")).to_contain_text("3 failed", timeout=30_000)
    seen = page.evaluate("window.seen")
    assert all(one[0] <= other[0] + 1e-9 for one, other in itertools.pairwise(seen))
    assert any(first > 0.9 and 0 < second < 1 and third == 0 for _, first, second, third in seen), seen
    watched.context.close()
    assert watched.faults == []


def test_dropping_several_files_adds_them(browser: Browser, empty: RunningServer) -> None:
    watched = Watched(browser, empty.url)
    page = watched.open()
    drop(page, ["a.png", "b.png"], picture("green", seed=8))
    assert page.evaluate("[window.covered, window.only]") == [True, "add"]
    expect(page.locator(".upload")).to_contain_text("1 added · 1 already there", timeout=60_000)
    watched.context.close()
    assert watched.faults == []


def drag_over(page: Page, path: Path, *kinds: str) -> None:
    """What a drag of a file over the middle of the page does."""
    dragging = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in kinds:
        dragging.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})


def test_one_picture_dropped_while_the_dialog_to_add_is_open_is_added(
    browser: Browser, empty: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "one.png").write_bytes(picture("green", seed=88))
    watched = Watched(browser, empty.url)
    page = watched.open()
    page.get_by_role("button", name="Add pictures").click()
    dialog = page.get_by_role("dialog", name="Add pictures")
    expect(dialog).to_contain_text("drop them anywhere")
    drag_over(page, tmp_path / "one.png", "dragEnter", "dragOver")
    assert page.evaluate("document.elementFromPoint(300, 300).dataset.zone") == "add"  # not behind the dialog
    drag_over(page, tmp_path / "one.png", "drop")
    expect(page.locator(".upload")).to_contain_text("one.png")
    expect(dialog).to_be_hidden()
    expect(page.locator(".upload > p")).to_have_text("1 added", timeout=60_000)
    expect(page.locator("#chip")).to_be_hidden()
    watched.context.close()
    assert watched.faults == []


def make_folder(folder: Path) -> Path:
    (folder / "album" / "deep").mkdir(parents=True)
    (folder / "album" / "a.png").write_bytes(picture("red", seed=71))
    (folder / "album" / "deep" / "b.png").write_bytes(picture("red", seed=72))
    (folder / "album" / "a.txt").write_text("a red square")
    (folder / "album" / "notes.txt").write_text("left out")
    (folder / "album" / ".hidden.png").write_bytes(b"left out")
    return folder / "album"


def test_a_folder_is_chosen_and_what_is_no_picture_is_left_out(
    browser: Browser, empty: RunningServer, tmp_path: Path
) -> None:
    watched = Watched(browser, empty.url)
    page = watched.open()
    page.get_by_role("button", name="Add pictures").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("dialog").get_by_role("button", name="Choose a folder").click()
    folder = make_folder(tmp_path)
    (folder / "c.TIF").write_bytes(make_sample("tiff"))
    chooser.value.set_files(folder)
    expect(page.locator(".files b")).to_have_text(["album/a.png", "album/c.TIF", "album/deep/b.png"])
    expect(page.locator(".upload > p")).to_have_text("3 added · 1 other file skipped (.txt)", timeout=60_000)
    images = empty.http.get("/v1/images?limit=3").json()["images"]
    captions = {one["source"]: one["caption"] for one in images}
    assert captions == {"album/a.png": "a red square", "album/c.TIF": None, "album/deep/b.png": None}
    page.get_by_role("link", name="Activity").click()
    expect(page.locator(".job .name").first).to_have_text("album")
    watched.context.close()
    assert watched.faults == []


def test_a_dropped_folder_is_walked_to_its_end(browser: Browser, empty: RunningServer, tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    for n in range(120):  # a browser lists at most 100 at a time
        (folder / "deep" / f"{n}.txt").write_text("left out")
    watched = Watched(browser, empty.url)
    page = watched.open()
    drag_over(page, folder, "dragEnter", "dragOver", "drop")
    expect(page.locator(".files b")).to_have_text(["album/a.png", "album/deep/b.png"])
    expect(page.locator(".upload > p")).to_contain_text("121 other files skipped (.txt: 121)", timeout=60_000)
    watched.context.close()
    assert watched.faults == []


def test_a_refused_upload_is_told_in_the_servers_words_and_can_be_sent_again(
    browser: Browser, empty: RunningServer
) -> None:
    watched = Watched(browser, empty.url)
    page = watched.open()
    body = json.dumps({"code": "storage_full", "detail": "the disk is full"})
    full = {"status": 507, "content_type": "application/problem+json", "body": body}
    page.route("**/v1/images/bulk", lambda route: route.fulfill(**full), times=1)
    choose_files(page, [png("c.png", 31)])
    card = page.locator(".upload.error")
    expect(card.locator("> p")).to_have_text("1 not sent")
    expect(card.locator(".failures > li")).to_contain_text("the disk is full")
    expect(card.locator(".failures ul li")).to_have_text("c.png")
    card.get_by_role("button", name="Send again").click()
    expect(page.locator(".upload > p")).to_have_text("1 added", timeout=60_000)
    watched.context.close()


def test_a_busy_server_is_sent_the_files_again_by_itself(browser: Browser, empty: RunningServer) -> None:
    watched = Watched(browser, empty.url)
    page = watched.open()
    answers: list[Request] = []

    def answer_busy(route: Route) -> None:
        answers.append(route.request)
        problem = {"code": "queue_full", "detail": "too many pictures wait"}
        route.fulfill(status=429, headers={"Retry-After": "1"}, json=problem)

    page.route("**/v1/images/bulk", answer_busy, times=1)
    choose_files(page, [png("d.png", 32)])
    expect(page.locator(".upload > p")).to_contain_text("The server is busy; sending again in 1 s")
    expect(page.locator(".upload > p")).to_have_text("1 added", timeout=60_000)
    assert len(answers) == 1
    watched.context.close()


def test_cancelling_says_what_was_not_sent(browser: Browser, empty: RunningServer) -> None:
    watched = Watched(browser, empty.url)
    page = watched.open()
    page.route("**/v1/images/bulk", lambda route: None)  # never answered
    choose_files(page, [png("e.png", 33), png("f.png", 34)])
    page.locator(".upload").get_by_role("button", name="Cancel").click()
    expect(page.locator(".upload > p")).to_have_text("2 not sent: cancelled")
    expect(page.locator(".failures > li")).to_contain_text("Not sent: cancelled")
    expect(page.locator(".failures ul li")).to_have_text(["e.png", "f.png"])
    watched.context.close()


def test_a_reload_finds_the_upload_again_and_the_badge_counts_it(browser: Browser, tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", workers=0) as server:  # nothing is processed
        watched = Watched(browser, server.url)
        page = watched.open()
        choose_files(page, [png("g.png", 35), png("h.png", 36)])
        expect(page.locator(".upload > p")).to_have_text("0 of 2 processed")
        activity = page.get_by_role("link", name="Activity: 1 import is running")
        expect(activity).to_contain_text("1")
        page.reload()
        card = page.locator(".upload")
        expect(card).to_contain_text("g.png and 1 more")
        expect(card.locator("> p")).to_have_text("0 of 2 processed")
        job = server.http.get("/v1/jobs").json()["jobs"][0]["id"]
        server.http.post(f"/v1/jobs/{job}/cancel")
        expect(card.locator("> p")).to_have_text("0 added · cancelled")
        expect(page.locator("#running-jobs")).to_be_hidden()
        activity = page.get_by_role("link", name="Activity", exact=True)
        activity.click()
        expect(page.locator(".job .name")).to_have_text("g.png and 1 more")
        page.reload()
        expect(page.locator(".job")).to_be_visible()
        expect(card).to_have_count(0)  # it has ended
        watched.context.close()
        assert watched.faults == []


def test_a_finished_card_leaves_by_itself_and_makes_room_for_the_next(browser: Browser, empty: RunningServer) -> None:
    watched = Watched(browser, empty.url)
    page = watched.page
    page.clock.install()
    watched.open()
    for n in (37, 38):
        choose_files(page, [png(f"{n}.png", n)])
        expect(page.locator(".upload")).to_have_count(1)
        expect(page.locator(".upload")).to_contain_text(f"{n}.png")
        expect(page.locator(".upload > p")).to_have_text("1 added", timeout=60_000)
    page.clock.run_for(25_000)
    expect(page.locator("#uploads")).to_be_hidden()
    watched.context.close()
    assert watched.faults == []


def test_requests_of_one_upload_are_one_job(browser: Browser, empty: RunningServer) -> None:
    watched = Watched(browser, empty.url)
    page = watched.page
    sent: list[str] = []
    job: dict[str, object] = {}

    def take(route: Route) -> None:
        sent.append(route.request.url.partition("/bulk")[2])
        job.update(job or empty.bulk([("i.png", picture("blue", seed=39))]))
        route.fulfill(status=202, json=job)

    page.route("**/v1/images/bulk*", take)
    watched.open()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("j.png", picture("red", seed=40))
    archives = [FilePayload(name=f"{n}.zip", mimeType="application/zip", buffer=out.getvalue()) for n in range(2)]
    choose_files(page, archives)
    expect(page.locator(".upload > p")).to_have_text("1 added", timeout=60_000)  # counted once
    assert sent == ["", f"?job={job['id']}"]
    watched.context.close()
    assert watched.faults == []


def test_a_file_that_is_there_already_leads_to_its_picture(browser: Browser, empty: RunningServer) -> None:
    content = picture("red", seed=75)
    id = empty.upload(content, "first.png").json()["id"]
    watched = Watched(browser, empty.url)
    page = watched.open()
    page.locator("#files").set_input_files([FilePayload(name="second.png", mimeType="image/png", buffer=content)])
    link = page.locator(".upload .duplicates").get_by_role("link", name="second.png")
    link.click(timeout=60_000)
    expect(page).to_have_url(f"{empty.url}/?show={id}")
    watched.context.close()
    assert watched.faults == []
