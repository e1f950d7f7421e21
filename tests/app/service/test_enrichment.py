from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import InProgress, NotFound, StartupError, Validation
from app.core.locks import LeaseOwner
from app.core.settings import Settings
from app.service.enrichment import EnrichmentService, check_enrichment_settings, list_kinds, lock_prefix
from app.service.tasks import TaskRunner
from app.storage.filters.parser import parse_filter
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.tables import enrichments
from tests.support.makers import claim, finish, insert, job_of
from tests.support.servers import wait_until

WAIT = 20.0


@pytest.fixture
def service(library: Library, tmp_path: Path) -> EnrichmentService:
    """With the text of three ready pictures to read; a fourth is not ready."""
    for n in range(3):
        insert(library.database, n, id=str(n), tags=("odd",) if n % 2 else ())
    for lease in claim(library.database):
        finish(library.database, lease)
    insert(library.database, 3, id="3")
    made = EnrichmentService(library, JobService(library), Settings(data_dir=tmp_path, ocr=True))
    made.start()
    return made


def run_request(library: Library, service: EnrichmentService, **asked: object) -> dict[str, object]:
    """The result of a request, done by the server's own thread for tasks."""
    job = service.request("default", "ocr", **{"filter": None, "failed_only": False, **asked})  # type: ignore[arg-type]
    runner = TaskRunner(library.database, lambda: True)
    runner.register("enrich", service.queue)
    runner.start()
    wait_until(lambda: job_of(library.database, job.id).state == "succeeded", WAIT)
    runner.close()
    return dict(job_of(library.database, job.id).result or {})


def test_pictures_are_queued_by_a_job(library: Library, service: EnrichmentService) -> None:
    assert service.count("default") == {"ocr": {"waiting": 3, "done": 0, "failed": 0}}
    assert run_request(library, service) == {"kind": "ocr", "queued": 3}
    odd = parse_filter({"must": [{"key": "tags", "match": {"value": "odd"}}]}, "images")
    assert run_request(library, service, filter=odd) == {"kind": "ocr", "queued": 1}
    assert run_request(library, service, failed_only=True) == {"kind": "ocr", "queued": 0}
    claimed = library.database.write(lambda c: enrichments.claim(c, "ocr", "a"))
    assert claimed is not None
    assert claimed.image.id == "1"  # asked for last
    library.database.write(lambda c: enrichments.fail(c, claimed, "it hangs"))
    assert service.count_all()["ocr"].failed == 1
    state = service.get("default", "1")["ocr"]
    assert (state.state, state.detail, state.result) == ("failed", "it hangs", None)
    assert run_request(library, service, failed_only=True) == {"kind": "ocr", "queued": 1}


def test_a_request_says_what_is_wrong(service: EnrichmentService) -> None:
    with pytest.raises(Validation, match="'caption' is off here; start the server with --captioner"):
        service.request("default", "caption", None, failed_only=False)
    with pytest.raises(NotFound):
        service.request("nowhere", "ocr", None, failed_only=False)
    with pytest.raises(NotFound):
        service.get("default", "nobody")
    service.request("default", "ocr", None, failed_only=False)
    with pytest.raises(InProgress):
        service.request("default", "ocr", None, failed_only=False)


def test_the_check_says_whether_the_process_lives(service: EnrichmentService, tmp_path: Path) -> None:
    (check,) = service.check()
    assert (check.name, check.ok, check.detail) == ("enrichment", False, "ocr has no process: the log says why")
    owner = LeaseOwner(tmp_path / "workers", lock_prefix("ocr"))
    (check,) = service.check()
    assert (check.ok, check.detail) == (True, "ocr works")
    owner.close()


def test_the_check_says_why_pictures_wait(library: Library, service: EnrichmentService, tmp_path: Path) -> None:
    owner = LeaseOwner(tmp_path / "workers", lock_prefix("ocr"))
    library.database.write(lambda c: enrichments.set_fault(c, "ocr", "the disk is full"))
    (check,) = service.check()
    assert (check.ok, check.detail) == (False, "ocr waits: the disk is full")
    library.database.write(lambda c: enrichments.set_fault(c, "ocr", None))
    (check,) = service.check()
    assert (check.ok, check.detail) == (True, "ocr works")
    owner.close()


@pytest.mark.parametrize(
    ("captioner", "words"),
    [
        ("http://me:secret@127.0.0.1", "must not hold a name or a password"),
        ("https://a.example/?key=1", "has no query"),
        ("open_clip:ViT-B-32/openai", "only a CoCa"),
        ("open_clip:coca_nothing/x", "knows no architecture"),
        ("open_clip:coca_ViT-L-14//nowhere/x.safetensors", "there is no file"),
    ],
)
def test_a_captioner_that_cannot_be_is_refused_at_the_start(captioner: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=words):
        check_enrichment_settings(Settings(captioner=captioner, data_dir=tmp_path))


def test_a_captioner_switches_its_kind_on(tmp_path: Path) -> None:
    check_enrichment_settings(Settings(captioner="http://127.0.0.1:11434", data_dir=tmp_path))
    assert list_kinds(Settings(captioner="http://127.0.0.1:11434")) == ["caption"]


def test_where_nothing_is_on_there_is_nothing_to_check_or_count(library: Library, tmp_path: Path) -> None:
    service = EnrichmentService(library, JobService(library), Settings(data_dir=tmp_path))
    service.start()
    assert list(service.check()) == []
    assert service.count_all() == {}
    assert service.count("default") == {}
