"""Pages of other sites, whose requests a browser sends along."""

from __future__ import annotations

import pytest

from tests.app.api.asking import check_refusal, make_picture
from tests.app.api.guarded import Guarded
from tests.support.servers import RunningServer


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
    ids=str,
)
def test_what_a_page_of_another_site_sends_changes_nothing(headers: dict[str, str], server: RunningServer) -> None:
    before = server.http.get("/v1/stats").json()["images"]["total"]
    files = {"file": ("x.png", make_picture())}
    check_refusal(server.http.post("/v1/images", headers=headers, files=files), 403, "forbidden")
    check_refusal(server.http.delete("/v1/images/x", headers=headers), 403, "forbidden")
    assert server.http.get("/v1/stats", headers=headers).json()["images"]["total"] == before


def test_our_own_page_may_behind_a_proxy_too(server: RunningServer, guarded: Guarded) -> None:
    """`guarded` names its proxies, `server` none."""
    ours = [
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://photos.example"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": server.url},
    ]
    for headers in ours:
        check_refusal(server.http.delete("/v1/images/nobody", headers=headers), 404, "not_found")
    forwarded = {"Origin": "https://photos.example", "X-Forwarded-Host": "photos.example"}
    check_refusal(server.http.delete("/v1/images/nobody", headers=forwarded), 403, "forbidden")
    forwarded["X-API-Key"] = guarded.keys["admin"]
    check_refusal(guarded.server.http.delete("/v1/images/nobody", headers=forwarded), 404, "not_found")
