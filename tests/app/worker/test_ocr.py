from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.core.errors import Rejected, StartupError
from app.core.locks import count_live_owners, has_live_owner
from app.core.process import spawn
from app.core.settings import Settings
from app.decode.pool import DecodePool
from app.decode.syscall_filter import is_supported
from app.encoder.text_recognition import TextLine
from app.service.data_dir import open_library
from app.service.enrichment import OCR_MISSING, check_enrichment_settings, lock_prefix
from app.storage.library import Library
from app.storage.sql import Connection
from app.storage.tables import embeddings, enrichments, work_queue
from app.worker import enrich
from app.worker.ocr import MAX_CHARS, OcrEnricher, cap_lines
from tests.support.makers import FINGERPRINT, SPACE, VECTOR, add, claim, image_of
from tests.support.printed import printed
from tests.support.servers import wait_until

WAIT = 60.0


@contextmanager
def reading_process(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """The process of the second pass, as a server starts it."""
    process = spawn("app.worker.enrich", "ocr", str(os.getpid()), env=settings.environment())
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 0


@pytest.mark.slow
def test_the_process_reads_what_waits_and_ends_when_it_is_told(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", ocr=True)
    library = open_library(settings)
    add(library, printed("Harbour lantern"), id="sign")
    (lease,) = claim(library.database)

    def finish(c: Connection) -> None:
        enrichments.switch(c, ["ocr"])
        embeddings.save_space(c, SPACE)
        work_queue.finish_image(c, lease, FINGERPRINT, VECTOR, 640, 360, False)

    library.database.write(finish)
    with reading_process(settings):
        wait_until(lambda: image_of(library.database, "sign").ocr_text == "Harbour lantern", WAIT)
        workers = settings.data_dir / "workers"
        assert has_live_owner(workers, lock_prefix("ocr"))
        assert count_live_owners(workers) == 0  # it is no worker
    assert not has_live_owner(workers, lock_prefix("ocr"))
    library.close()


def test_a_damaged_file_gives_the_picture_up(library: Library, pool: DecodePool) -> None:
    add(library, printed("gone"), id="sign")
    image = image_of(library.database, "sign")
    path = library.blobs.path(image.sha256)
    path.write_bytes(b"nothing")
    with pytest.raises(Rejected):
        OcrEnricher(pool).enrich(image, path)


def test_long_texts_are_cut_at_a_line() -> None:
    lines = [TextLine("x" * 999, 1.0, ()) for _ in range(20)]
    assert len(cap_lines(lines)) == MAX_CHARS // 1000
    assert cap_lines(lines[:3]) == lines[:3]


@pytest.mark.slow
def test_the_process_has_no_way_to_the_network() -> None:
    code = (
        "import socket\nfrom app.decode.syscall_filter import refuse_sockets\nrefuse_sockets()\n"
        "a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n"
        "for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):\n"
        "    try: socket.socket(family)\n"
        "    except PermissionError: pass\n"
        "    else: raise SystemExit(3)\n"
        "from app.encoder.text_recognition import TextRecogniser\nimport numpy\n"
        "assert TextRecogniser().read(numpy.zeros((64, 64, 3), numpy.uint8)) == []\n"
    )
    if not is_supported():
        pytest.skip("this kernel has no filters of calls")
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=WAIT).returncode == 0


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    check_enrichment_settings(Settings(ocr=True))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StartupError, match="pip install"):
        check_enrichment_settings(Settings(ocr=True))
    check_enrichment_settings(Settings())
    assert "sightline-search[ocr]" in OCR_MISSING


def test_there_is_no_pass_of_another_kind(pool: DecodePool) -> None:
    with pytest.raises(StartupError, match="smell"):
        enrich.open_enricher("smell", Settings(), pool)
