"""/docs: what it fills in works, and fields that may be repeated are sent once for each value."""

from __future__ import annotations

from tests.app.web.watched import Watched
from tests.support.pictures import picture
from tests.support.servers import RunningServer


def test_an_upload_with_what_docs_fills_in_works_and_repeats_its_tags(
    page_on_server: Watched, empty: RunningServer
) -> None:
    page = page_on_server.page
    page.goto(f"{empty.url}/docs")
    assert page.locator(".opblock-tag").first.get_attribute("data-tag") == "search"
    operation = page.locator("#operations-upload-upload_image")
    operation.get_by_role("button").first.click()
    operation.get_by_role("button", name="Try it out").click()
    file = {"name": "a.png", "mimeType": "image/png", "buffer": picture("red", seed=4711)}
    operation.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type]
    with page.expect_response("**/v1/images*") as sent:
        operation.get_by_role("button", name="Execute").click()
    image = sent.value.json()
    assert sent.value.status in (200, 202), image
    assert (image["tags"], image["caption"]) == (["car", "red"], "a red car")
