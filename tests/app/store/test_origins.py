from __future__ import annotations

from app.store import origins
from app.store.database import Database
from app.store.origins import Known


def test_what_a_url_gave_last_is_remembered(database: Database) -> None:
    first, second = Known('"1"', "0" * 64), Known('"2"', "1" * 64)
    database.write(lambda c: origins.keep(c, "http://a/", first))
    database.write(lambda c: origins.keep(c, "http://b/", first))
    database.write(lambda c: origins.keep(c, "http://b/", second))
    found = database.read(lambda c: origins.known(c, ["http://a/", "http://b/", "http://c/"]))
    assert found == {"http://a/": first, "http://b/": second}
    assert database.read(lambda c: origins.known(c, [])) == {}
