"""Sessions of browsers: a cookie that scripts cannot read, with the rights of its key and no longer life."""

from __future__ import annotations

from collections.abc import Iterator
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from app.core.types import KeyScope
from tests.app.api.asking import check_refusal
from tests.app.api.guarded import Guarded
from tests.support.servers import RunningServer


@pytest.fixture
def browser(guarded: Guarded) -> Iterator[httpx.Client]:
    """A client that keeps cookies, from an address of its own."""
    with httpx.Client(
        base_url=guarded.server.url, trust_env=False, headers={"X-Forwarded-For": guarded.address()}
    ) as client:
        yield client


def test_a_session_has_the_rights_of_its_key(browser: httpx.Client, guarded: Guarded) -> None:
    assert browser.get("/v1/session").json()["needed"] is True
    assert browser.get("/v1/session").json()["scope"] is None
    answer = browser.post("/v1/session", json={"key": f" {guarded.keys['search']}\n"})
    assert answer.status_code == 200
    assert answer.json() | {"expires_at": None} == {
        **{"needed": True, "name": "search", "scope": "search", "collections": None, "expires_at": None}
    }
    assert browser.get("/v1/stats").status_code == 200
    assert browser.get("/v1/images/inside/thumbnail").status_code == 200
    assert browser.get("/v1/session").json()["scope"] == "search"
    check_refusal(browser.delete("/v1/images/inside"), 403, "forbidden")


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(browser: httpx.Client, guarded: Guarded) -> None:
    answer = browser.post("/v1/session", json={"key": guarded.keys["search"]})
    (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
    assert cookie.key == f"sightline_{urlsplit(guarded.server.url).port}"
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert not cookie["secure"]  # there is no TLS here
    assert not cookie["domain"]
    assert guarded.keys["search"] not in answer.text + answer.headers["set-cookie"]
    secure = browser.post(
        "/v1/session", json={"key": guarded.keys["search"]}, headers={"X-Forwarded-Proto": "https"}
    ).headers["set-cookie"]
    assert "Secure" in secure


def test_a_cookie_of_another_port_is_no_session(browser: httpx.Client, guarded: Guarded) -> None:
    browser.post("/v1/session", json={"key": guarded.keys["search"]})
    ((name, value),) = browser.cookies.items()
    browser.cookies.clear()
    assert browser.get("/v1/stats", headers={"Cookie": f"sightline_1={value}"}).status_code == 401
    assert browser.get("/v1/stats", headers={"Cookie": f"x=y; {name}={value}; z"}).status_code == 200


def test_signing_out_ends_the_session_and_not_only_the_cookie(browser: httpx.Client, guarded: Guarded) -> None:
    browser.post("/v1/session", json={"key": guarded.keys["search"]})
    kept = {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
    assert browser.get("/v1/stats", headers=kept).status_code == 200
    assert browser.delete("/v1/session").status_code == 204
    assert not browser.cookies
    answer = browser.get("/v1/stats", headers=kept)
    check_refusal(answer, 401, "unauthorized")
    assert "Max-Age=0" in answer.headers["set-cookie"]  # the browser shall send it no more
    assert browser.delete("/v1/session").status_code == 204


def test_a_session_ends_with_its_key(browser: httpx.Client, guarded: Guarded) -> None:
    key, text = guarded.access.create("short", KeyScope.SEARCH)
    assert browser.post("/v1/session", json={"key": text}).status_code == 200
    assert browser.get("/v1/stats").status_code == 200
    guarded.access.revoke(key.id)
    check_refusal(browser.get("/v1/stats"), 401, "unauthorized")


@pytest.mark.parametrize("kind", ["unknown", "revoked", "expired"])
def test_a_key_that_is_no_good_begins_no_session(kind: str, browser: httpx.Client, guarded: Guarded) -> None:
    answer = browser.post("/v1/session", json={"key": guarded.keys[kind]})
    check_refusal(answer, 401, "unauthorized")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("body", [{}, {"key": 1}, {"key": "x" * 201}, [], "x"], ids=str)
def test_what_is_no_key_is_refused_without_being_repeated(body: object, browser: httpx.Client) -> None:
    answer = browser.post("/v1/session", json=body)
    check_refusal(answer, 422, "validation")
    assert "xxxx" not in answer.text


def test_a_page_of_another_site_cannot_sign_in_or_out(browser: httpx.Client, guarded: Guarded) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "same-site"}):
        check_refusal(
            browser.post("/v1/session", json={"key": guarded.keys["search"]}, headers=headers), 403, "forbidden"
        )
        check_refusal(browser.delete("/v1/session", headers=headers), 403, "forbidden")


def test_ended_sessions_are_limited_far_above_what_a_page_sends(browser: httpx.Client, guarded: Guarded) -> None:
    name = f"sightline_{urlsplit(guarded.server.url).port}"
    answers = [browser.get("/v1/stats", headers={"Cookie": f"{name}=gone"}).status_code for _ in range(302)]
    assert answers == [401] * 300 + [429] * 2


def test_where_no_key_is_needed_no_session_is(server: RunningServer) -> None:
    assert server.http.get("/v1/session").json() == {
        **{"needed": False, "name": None, "scope": None, "collections": None, "expires_at": None}
    }
    answer = server.http.post("/v1/session", json={"key": "sl_x_y"})
    assert (answer.status_code, answer.json()["needed"]) == (200, False)
    assert "set-cookie" not in answer.headers
