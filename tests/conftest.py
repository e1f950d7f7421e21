"""Fixtures that many tests share."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import coverage
import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

from app.decode.limits import PictureLimits
from app.storage.address import open_database
from app.storage.blobs import BlobStore
from app.storage.database import Database
from app.storage.library import Library
from index.milvus_client import MilvusAddress, MilvusClient
from tests.index.proxy import Proxy
from tests.support.postgresql import PostgresqlServer, find_binaries
from tests.support.servers import RunningServer

HERE = Path(__file__).parent
hypothesis.settings.register_profile("untimed", deadline=None)  # other tests have the processor meanwhile
hypothesis.settings.load_profile("untimed")
FOLDERS = pytest.StashKey[list[str]]()
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 6 << 30  # less free memory than this is left alone
# Files and folders that `make test` leaves out and `make test-all` runs, beside single tests marked `slow`.
SLOW = {
    *(HERE / name for name in ("bench", "training", "docs/test_backup.py")),
    *(HERE / "reliability" / f"test_{name}.py" for name in ("cluster", "disks", "hostile", "kills")),
    *(HERE / "acceptance" / f"test_{name}.py" for name in ("cli", "demo", "deploy", "image", "kubernetes", "parity")),
    *(HERE / "acceptance" / f"test_{name}.py" for name in ("balancer", "proxy", "starter", "wheel", "words")),
}
# Tests of what both databases do, and those among them of what SQLite alone does (beside tests marked `sqlite`).
BOTH = {
    HERE / "app" / "storage",
    *(HERE / "app" / "search" / f"test_{name}.py" for name in ("build_process", "facets", "filter_cache", "heads")),
    *(HERE / "app" / "search" / f"test_{name}.py" for name in ("index_manager", "searcher")),
    *(HERE / "app" / "service" / f"test_{name}.py" for name in ("auth", "collection_deletion", "enrichment", "tasks")),
    *(HERE / "app" / "service" / f"test_{name}.py" for name in ("image_waiter", "photograph_watch")),
    *(HERE / "app" / "worker" / f"test_{name}.py" for name in ("embed", "importer", "video_import")),
    *(HERE / "app" / "sources" / f"test_{name}.py" for name in ("changed", "watched_folder", "pairs")),
}
SQLITE_ONLY = {HERE / "app" / "storage" / f"test_{name}.py" for name in ("database", "backup", "file_system", "verify")}
# Coverage makes a process half as slow again. What runs in the processes of these tests is covered by the others.
UNMEASURED = [HERE / name for name in ("acceptance", "reliability", "docs", "bench", "app/web", "app/encoder")]
# Folders whose files take long, in this order: what is short comes last, so that the workers end together.
FIRST = {name: n for n, name in enumerate(("reliability", "web", "acceptance", "docs", "routes", "api", "wires"))}
# Files that share what costs seconds to begin, such as a server: one worker of xdist runs all of a line.
GROUPS = {
    "page": r"web/test_(access|arrangement|collections|docs|files|filter|grid|looks|page|query|sources)",
    "page of an empty server": r"web/test_(duplicates|first_look|jobs|states|upload|watches|words)",
    "keys": r"api/(test_(auth|files|mcp|open_routes|permissions|request_origin|strict_route)|routes/test_session)",
    "wires": r"api/wires/",
    "milvus": r"index/test_(contract|factory|milvus\w*|reconcile)|search/test_index_manager",
}
# Files whose tests are long and share nothing: any worker runs any of them.
APART = r"reliability/test_(cluster|disks|hostile|kills)|acceptance/test_parity"


def pytest_configure(config: pytest.Config) -> None:
    """The run's own process makes the folders that its workers share.

    All servers share the models that one of them has compiled. Everything else is in memory where there is enough:
    a test opens a database or two, which costs 30 waits for the disk, and no test can cut the power.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job ignores Ctrl-C, and so would every process that the tests start and interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        models = os.environ["SIGHTLINE_MODELS_DIR"] = tempfile.mkdtemp(prefix="sightline-models-")
        config.stash[FOLDERS] = [models]
        if "TMPDIR" not in os.environ and MEMORY.is_dir() and find_free_memory() > MEMORY_BYTES:
            get_temp_dir()  # multiprocessing removes its own when Python ends, after the folder is gone
            folder = os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="sightline-tests-", dir=MEMORY)
            Path(folder).chmod(0o711)  # PostgreSQL runs as another user
            config.stash[FOLDERS].append(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    for folder in config.stash.get(FOLDERS, []):
        shutil.rmtree(folder, ignore_errors=True)


def find_free_memory() -> int:
    """Bytes that both the machine and its file system in memory have free."""
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    return min(shutil.disk_usage(MEMORY).free, int(available[1]) << 10 if available else 0)


class GroupScheduling(LoadFileScheduling):  # type: ignore[misc]
    """xdist's `loadfile`, where the files of a group count as one file, and each test that stands apart is one."""

    def _split_scope(self, nodeid: str) -> str:
        path: str = super()._split_scope(nodeid)
        if re.search(APART, path):
            return nodeid
        return next((name for name, files in GROUPS.items() if re.search(files, path)), path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling | None:
    return GroupScheduling(config, log) if config.option.dist == "loadfile" else None


def pytest_sessionfinish() -> None:
    """Save what coverage measured: xdist kills a worker that takes 10 s to exit, as saving may on a busy machine."""
    if measuring := coverage.Coverage.current():
        measuring.save()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where the slow tests do not run, their files are not imported: some of them take seconds."""
    return True if collection_path in SLOW and config.option.markexpr == "not slow" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests. Those that wait most come first, so that the last worker ends soon after the others."""
    for item in items:
        if not SLOW.isdisjoint((item.path, *item.path.parents)):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: FIRST.get(item.path.parent.name, len(FIRST)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with pytest.MonkeyPatch.context() as patch:
        if any(folder in item.path.parents for folder in UNMEASURED):
            patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        return (yield)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The storage contract: the tests of BOTH that use `database` run over SQLite and over PostgreSQL."""
    path = metafunc.definition.path
    is_shared = not BOTH.isdisjoint((path, *path.parents)) and path not in SQLITE_ONLY
    if is_shared and "database" in metafunc.fixturenames and not metafunc.definition.get_closest_marker("sqlite"):
        metafunc.parametrize("database", ("sqlite", "postgresql"), indirect=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """One PostgreSQL server for everybody. Skips where Debian's `postgresql` is not installed."""
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    server = PostgresqlServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SQLite's file with Sightline's tables and nothing in them, to be copied."""
    path = tmp_path_factory.mktemp("empty") / "sightline.db"
    open_database(path).close()
    return path


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """SQLite's, unless the test asks for another."""
    if getattr(request, "param", "sqlite") == "sqlite":
        path = shutil.copyfile(request.getfixturevalue("empty_database"), tmp_path / "sightline.db")
        with closing(open_database(path)) as database:
            yield database
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    with server.database() as address, closing(open_database(address)) as database:
        yield database


@pytest.fixture
def library(database: Database, tmp_path: Path) -> Library:
    return Library(database, BlobStore(tmp_path), PictureLimits(), max_queue=1_000)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with the colours model that read-mostly tests share; each uses pictures of its own."""
    with RunningServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server of this test alone."""
    with RunningServer(tmp_path / "data") as running:
        yield running


@pytest.fixture(scope="session")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusClient]:
    """Milvus Lite, one for all tests. Skips where the extra `milvus` is not installed."""
    for package in ("pymilvus", "milvus_lite"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    engine = MilvusClient(MilvusAddress.parse(f"milvus:{tmp_path_factory.mktemp('lite') / 'engine.db'}"))
    yield engine
    engine.close()


@pytest.fixture
def proxy(lite: MilvusClient) -> Iterator[Proxy]:
    """A network before Milvus Lite."""
    lite.call("list_collections", 10)
    with Proxy(int(lite._client._config.address.rpartition(":")[2])) as proxy:
        yield proxy
