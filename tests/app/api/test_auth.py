"""Who is let in: keys in two headers and a cookie, none twice, whatever is done to the address."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest

from app.api.auth import read_presented_keys
from app.api.request_origin import parse_proxies
from app.core.errors import StartupError
from app.core.types import KeyScope
from app.service.auth import ApiKeyService
from app.storage.address import open_database
from tests.app.api.asking import check_problem, check_refusal, raw
from tests.app.api.guarded import Guarded
from tests.support.servers import RunningServer, wait_until

PROTECTED = ["/v1/stats", "/v1/images", "/v1/images/inside/file", "/v1/jobs", "/metrics", "/openapi.json", "/docs"]
TRICKS = [
    "/{}",
    "//{}",
    "/./{}",
    "/%2e/{}",
    "/x/../{}",
    "/x/%2e%2e/{}",
    "/livez/../{}",
    "/livez/%2e%2e/{}",
    "/livez%2f..%2f{}",
    "/livez;/{}",
    "/livez%00/{}",
    "/web/../{}",
    "/web/%2e%2e/{}",
    "/web/..%2f{}",
    "/web/%252e%252e/{}",
    "/{}/",
    "/{}//",
    "/{};x=/livez",
    "/{}%00",
    "/{}%20",
    "/{}%23/livez",
    "/{}?/livez",
    "/{}?x=/../livez",
    "/\\{}",
    "/{}/..",
    "/V1/../{}",
    "http://localhost/{}",
    "http://localhost//{}",
    "http://localhost/livez/../{}",
    "HTTP://user@localhost:80/{}",
    "https://livez/{}",
]


@pytest.mark.parametrize("trick", TRICKS)
def test_no_spelling_of_an_address_is_a_way_in(trick: str, guarded: Guarded) -> None:
    """Refused for want of a key, or for what it is; never answered: the decision is that on the plain address."""
    for path in PROTECTED:
        target = trick.format(path[1:])
        for method in ("GET", "POST", "get"):
            line = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            status, _, body = raw(guarded.server, line.encode())
            open_one = target.startswith(("/web/", "/livez;")) or "%2e%2e" in target
            assert status in ((400, 401, 404) if open_one else (400, 401)), (line, status, body)


def test_the_plain_addresses_are_answered_with_a_key(guarded: Guarded) -> None:
    """So that the table above does not pass because nothing is there."""
    for path in PROTECTED:
        assert guarded.ask("admin", "GET", path).status_code == 200, path


def test_an_encoded_address_is_the_same_address(guarded: Guarded) -> None:
    assert guarded.ask("none", "GET", "/%76%31/stats").status_code == 401
    assert guarded.ask("search", "GET", "/%76%31/stats").status_code == 200
    check_refusal(guarded.ask("search", "DELETE", "/v1/images/%69nside"), 403, "forbidden")


def test_unknown_addresses_and_methods_are_told_to_those_with_a_key_alone(guarded: Guarded) -> None:
    for method, path in (("GET", "/nothing"), ("PUT", "/v1/images"), ("TRACE", "/v1/stats"), ("GET", "/v1/stats/")):
        check_refusal(guarded.ask("none", method, path), 401, "unauthorized")
    check_refusal(guarded.ask("search", "GET", "/nothing"), 404, "not_found")
    check_refusal(guarded.ask("search", "GET", "/v1/stats/"), 404, "not_found")
    answer = guarded.ask("search", "PUT", "/v1/images")
    check_refusal(answer, 405, "bad_request")
    assert answer.headers["allow"] == "GET, HEAD, POST"


def test_a_key_may_come_in_either_header_and_in_both_if_it_is_one(guarded: Guarded) -> None:
    key = guarded.keys["search"]
    other = guarded.keys["admin"]

    def status(**headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["X-Forwarded-For"] = guarded.address()
        return guarded.server.http.get("/v1/stats", headers=sent).status_code

    assert status(Authorization=f"Bearer {key}") == 200
    assert status(authorization=f"bearer   {key}") == 200
    assert status(X_API_Key=key) == 200
    assert status(Authorization=f"Bearer {key}", X_API_Key=key) == 200
    assert status(Authorization=f"Bearer {key}", X_API_Key=other) == 401
    assert status(Authorization="Basic c29tZW9uZTpwYXNzd29yZA==", X_API_Key=key) == 200  # a proxy's own
    assert status(Authorization="Basic c29tZW9uZTpwYXNzd29yZA==") == 401
    assert status(Authorization="Bearer") == 401
    assert status(Authorization=f"Token {key}") == 401
    assert status(Cookie=f"key={key}; sl={key}") == 401
    assert guarded.server.http.get("/v1/stats", params={"key": key, "api_key": key}).status_code == 401


def test_two_headers_of_one_name_are_two_keys() -> None:
    scope = {"headers": [(b"x-api-key", b"a"), (b"x-api-key", b"b"), (b"authorization", b"Bearer c")]}
    assert read_presented_keys(scope) == {"a", "b", "c"}


def test_the_challenge_says_what_is_wrong(guarded: Guarded) -> None:
    missing = guarded.ask("none", "GET", "/v1/stats")
    assert missing.headers["www-authenticate"] == 'Bearer realm="sightline"'
    assert "Authorization: Bearer" in check_refusal(missing, 401, "unauthorized")["detail"]
    wrong = guarded.ask("unknown", "GET", "/v1/stats")
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    details = {guarded.ask(kind, "GET", "/v1/stats").json()["detail"] for kind in ("unknown", "revoked", "expired")}
    assert len(details) == 1  # which of them it is, is nobody's business
    little = guarded.ask("search", "DELETE", "/v1/images/inside")
    assert 'error="insufficient_scope", scope="write"' in little.headers["www-authenticate"]


def test_wrong_keys_are_limited_by_address_and_right_ones_never(guarded: Guarded) -> None:
    sent = {"X-Forwarded-For": guarded.address(), "X-API-Key": guarded.keys["unknown"]}
    answers = [guarded.server.http.get("/v1/stats", headers=sent) for _ in range(12)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
    check_refusal(answers[-1], 429, "rate_limited")
    assert guarded.server.http.get("/v1/stats", headers={**sent, "X-API-Key": guarded.keys["search"]}).is_success
    assert guarded.server.http.get("/livez", headers={"X-Forwarded-For": sent["X-Forwarded-For"]}).is_success
    check_refusal(guarded.server.http.post("/v1/session", json={"key": "sl_x_y"}, headers=sent), 429, "rate_limited")
    check_refusal(guarded.ask("unknown", "GET", "/v1/stats"), 401, "unauthorized")  # from elsewhere


BAD_SESSIONS: list[tuple[int, dict[str, Any]]] = [
    (401, {"json": {"key": "sl_x_y"}}),
    (422, {"json": {"key": 1}}),
    (422, {"json": {"key": "x" * 201}}),
    (422, {"content": "{", "headers": {"Content-Type": "application/json"}}),
    (415, {"content": "{}", "headers": {"Content-Type": "text/plain"}}),
    (422, {"json": {"key": "sl_x_y"}, "params": {"k": 1}}),
    (413, {"json": {"key": [[]] * 600}}),
    (413, {"content": iter([b'{"key": "', b"x" * 1024]), "headers": {"Content-Type": "application/json"}}),
]


@pytest.mark.parametrize(("status", "sent"), BAD_SESSIONS, ids=[str(sent)[:40] for _, sent in BAD_SESSIONS])
def test_whatever_is_wrong_about_a_session_is_counted_by_address(
    status: int, sent: dict[str, Any], guarded: Guarded
) -> None:
    guarded.server.http.cookies.clear()
    elsewhere = {"X-Forwarded-For": guarded.address()}
    sent = {**sent, "headers": {**sent.get("headers", {}), **elsewhere}}
    assert guarded.server.http.post("/v1/session", **sent).status_code == status
    wrong = {"X-API-Key": guarded.keys["unknown"], **elsewhere}
    assert [guarded.server.http.get("/v1/stats", headers=wrong).status_code for _ in range(10)] == [401] * 9 + [429]


def test_nobody_believes_an_address_that_no_named_proxy_sends(own_server: RunningServer) -> None:
    database = open_database(own_server.data_dir / "sightline.db")
    ApiKeyService(database).create("one", KeyScope.SEARCH)
    database.close()
    answers = [
        own_server.http.get("/v1/stats", headers={"X-API-Key": "sl_x_y", name: f"10.0.0.{n}"}).status_code
        for name in ("X-Forwarded-For", "Forwarded")
        for n in range(6)
    ]
    assert answers == [401] * 10 + [429] * 2
    assert own_server.output().count("SIGHTLINE_TRUSTED_PROXIES must name it") == 1


@pytest.mark.parametrize("text", ["localhost", "10.0.0.1/8", "127.0.0.1,10.0.0.256"])
def test_a_proxy_that_is_no_address_is_one_line(text: str) -> None:
    with pytest.raises(StartupError, match="SIGHTLINE_TRUSTED_PROXIES"):
        parse_proxies(text)


def test_what_strangers_send_in_vain_is_cut_short(guarded: Guarded) -> None:
    """Each would cost milliseconds to read."""
    long = "a=" + "&a=" * 20_000
    check_refusal(guarded.ask("none", "GET", f"/v1/session?{long}"), 422, "validation")
    assert guarded.ask("none", "GET", f"/livez/{'%41' * 4_000}").status_code == 414
    assert guarded.ask("none", "GET", f"/nothing?{long}").status_code == 401
    for headers in ({f"x-{n}": "1" for n in range(201)}, {"X": "1" * (65 << 10)}):
        assert guarded.server.http.get("/livez", headers=headers).status_code == 431
    assert guarded.server.http.get("/livez", headers={"Cookie": "a=b;" * 10_000}).is_success


def test_a_key_revoked_by_another_process_is_refused_from_the_next_request_on(guarded: Guarded) -> None:
    key, text = guarded.access.create("short", KeyScope.SEARCH)
    headers = {"X-API-Key": text, "X-Forwarded-For": guarded.address()}
    assert guarded.server.http.get("/v1/stats", headers=headers).status_code == 200
    guarded.access.revoke(key.id)
    assert guarded.server.http.get("/v1/stats", headers=headers).status_code == 401


def test_without_a_key_health_is_a_word(guarded: Guarded) -> None:
    assert guarded.ask("none", "GET", "/livez").json() == {"status": "ok"}
    assert guarded.ask("none", "GET", "/readyz").json() == {"status": "ok", "reasons": [], "faults": [], "checks": []}


def test_a_key_does_not_let_other_sites_pages_in(guarded: Guarded) -> None:
    headers = {"X-API-Key": guarded.keys["admin"], "Sec-Fetch-Site": "cross-site"}
    check_refusal(guarded.server.http.delete("/v1/images/inside", headers=headers), 403, "forbidden")


def test_answers_with_data_are_kept_by_no_cache_between(guarded: Guarded) -> None:
    for path in ("/v1/stats", "/v1/images", "/v1/session"):
        assert guarded.ask("search", "GET", path).headers["cache-control"] == "private, no-store"
    assert "private" in guarded.ask("search", "GET", "/v1/images/inside/file").headers["cache-control"]


def test_no_key_is_ever_in_the_log(guarded: Guarded) -> None:
    """Neither one that is sent as it should be, nor one that is sent where it should not be."""
    key = guarded.keys["search"]
    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"Authorization": f"Bearer  {key}x"}):
        guarded.server.http.get("/v1/stats", headers={**headers, "X-Forwarded-For": guarded.address()})
    guarded.ask("search", "GET", f"/v1/images/{key}")
    guarded.ask("search", "GET", f"/{key}", params={"key": key})
    guarded.ask("search", "POST", "/v1/session", json={"key": key})
    guarded.ask("search", "POST", "/v1/session", json={"key": key * 10})
    log = guarded.server.output()
    assert "sl_\u2026" in log  # the line of the request is there, without it
    for text in guarded.keys.values():
        assert text.split("_", 2)[2] not in log
    assert not re.search(r"sl_[0-9a-f]{12}_", log)


def test_nothing_that_a_caller_sends_breaks_a_line_of_the_log_or_moves_a_cursor(guarded: Guarded) -> None:
    id = "caller-0123456789"
    nasty = "a\r\nb\x1b[2Jc\x00d\u2028e\x7f\u202ef"
    headers = {"Authorization": f"Bearer {guarded.keys['admin']}", "X-Forwarded-For": guarded.address()}
    address = f"/v1/images/{quote(nasty)}?access_token=hidden-in-the-query"
    guarded.server.http.get(address, headers={**headers, "X-Request-ID": id, "Cookie": "sightline_8000=hidden-cookie"})
    name = {"files": (nasty + ".zip", b"PK\x03\x04 no archive")}
    sent = guarded.server.http.post("/v1/images/bulk", headers={**headers, "X-Request-ID": id + "-2"}, files=name)
    wait_until(lambda: guarded.ask("admin", "GET", f"/v1/jobs/{sent.json()['id']}").json()["state"] == "succeeded", 60)

    def read_log() -> list[dict[str, Any]]:
        printed = ("Sightline serves ", "Immich can ask ", "model: ")  # for the person who started it, before the log
        lines = [line for line in guarded.server.output().splitlines() if not line.startswith(printed)]
        assert all(line.isprintable() for line in lines)
        return [json.loads(line) for line in lines]

    wait_until(
        lambda: any(record.get("job") == sent.json()["id"] and "importing" in record["event"] for record in read_log()),
        20,
    )
    records = read_log()
    (answered,) = (one for one in records if one.get("request_id") == id and one["event"] == "answered")
    assert (answered["status"], answered["route"], answered["path"]) == (422, "/v1/images/{id}", f"/v1/images/{nasty}")
    (accepted,) = (one for one in records if one["event"] == "job accepted" and one["request_id"] == id + "-2")
    assert accepted["job"] == sent.json()["id"]
    assert "hidden" not in guarded.server.output()


def test_without_keys_a_server_on_loopback_asks_for_none(server: RunningServer) -> None:
    assert server.http.get("/v1/stats").status_code == 200
    assert server.http.get("/v1/stats", headers={"X-API-Key": "sl_x_y"}).status_code == 200
    answer = server.http.put("/v1/images")
    assert check_problem(answer.json(), 405, dict(answer.headers))["code"] == "bad_request"
