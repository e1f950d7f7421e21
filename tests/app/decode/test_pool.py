"""The decode children: whatever one does, its task gets one of our errors and its neighbours finish."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.errors import ImageCorrupt, ImageTooLarge, Overloaded
from app.core.types import Preprocessing
from app.decode.limits import ChildLimits, PictureLimits
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFile
from tests.support import hostile_files
from tests.support.processes import descendants
from tests.support.sample_pictures import sample, solid_png

ROOT = Path(__file__).parents[3]
SMALL = Preprocessing(32)
STRICT = ChildLimits(seconds=1.5, memory=512 << 20, cpu_seconds=1)
HOSTILE = ("tests.support.hostile_files",)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(2, STRICT, modules=HOSTILE) as pool:
        yield pool


def list_running(pids: list[int]) -> list[int]:
    """Those of the processes that still run (a zombie does not)."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):  # the latter if it ends while its file is open
            continue
        if state != "Z":
            found.append(pid)
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def used_ticks(pid: int) -> int:
    """Of the processor's time."""
    return sum(int(part) for part in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])


def submit_long_task(pool: DecodePool, child: int) -> Future[Any]:
    """One that uses the processor, and that the child has begun."""
    used = used_ticks(child)
    future = pool.submit(hostile_files.use_processor, 30.0)
    assert wait_until(lambda: used_ticks(child) > used + 5)
    return future


def test_a_picture_decoded_in_a_child_is_the_same(pool: DecodePool, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(sample("jpeg", 300, 200))
    found = pool.submit(decode_picture, path, SMALL, PictureLimits(), OutputFile(tmp_path / "small.webp"), 64).result(
        60
    )
    np.testing.assert_array_equal(found.pixels, decode_picture(path, SMALL, PictureLimits()).pixels)
    assert (found.format, found.width, found.height) == ("jpeg", 300, 200)
    assert (tmp_path / "small.webp").read_bytes()[:4] == b"RIFF"


def test_errors_of_the_picture_come_through(pool: DecodePool, tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(sample("png")[:-100])
    with pytest.raises(ImageCorrupt, match="cut off"):
        pool.submit(decode_picture, tmp_path / "cut", SMALL, PictureLimits()).result(60)


@pytest.mark.parametrize(
    ("function", "args", "detail"),
    [
        (hostile_files.segfault, (), "crashed"),
        (hostile_files.abort, (), "crashed"),
        (hostile_files.exit_cleanly, (), "crashed"),
        (hostile_files.loop_forever, (), "longer than"),
        (hostile_files.sleep, (30,), "longer than 1.5 s"),
        (hostile_files.allocate, (1 << 30,), "more memory than allowed"),
        (hostile_files.raise_odd, (), "could not be read"),
        (hostile_files.leave_by_exit, (), "could not be read"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_child_that_dies_harms_its_own_task_only(
    pool: DecodePool, function: Callable[..., Any], args: tuple[Any, ...], detail: str
) -> None:
    before = [pool.submit(hostile_files.sleep, 0.01) for _ in range(4)]
    bad: Future[Any] = pool.submit(function, *args)
    after = [pool.submit(hostile_files.sleep, 0.01) for _ in range(8)]
    with pytest.raises(ImageCorrupt, match=detail):
        bad.result(60)
    assert [future.result(60) for future in before + after] == [0.01] * 12


def test_processor_time_is_bounded_for_each_task_and_not_in_all() -> None:
    with DecodePool(1, ChildLimits(seconds=60, cpu_seconds=1), modules=HOSTILE) as pool:
        assert [pool.submit(hostile_files.use_processor, 0.6).result(60) for _ in range(4)] == [0.6] * 4
        with pytest.raises(ImageCorrupt, match="1 s of processor time"):
            pool.submit(hostile_files.loop_forever).result(60)


def test_children_are_small_and_confined(pool: DecodePool) -> None:
    pytest.importorskip("torch")  # the parent has it loaded, the children must not
    names = {name.split(".")[0] for name in pool.submit(hostile_files.list_modules).result(60)}
    assert not names & {
        "torch",
        "open_clip",
        "fastapi",
        "starlette",
        "apsw",
        "pydantic",
        "pydantic_settings",
        "faiss",
    }
    assert "app.core.settings" not in pool.submit(hostile_files.list_modules).result(60)
    assert len(list(Path(f"/proc/{pool.submit(hostile_files.read_pid).result(60)}/task").iterdir())) == 1
    limits = pool.submit(hostile_files.read_limits).result(60)
    assert limits["RLIMIT_AS"] == [512 << 20, 512 << 20]
    assert limits["RLIMIT_CORE"] == [0, 0]
    assert limits["RLIMIT_NOFILE"] == [64, 64]
    assert 0 < limits["RLIMIT_CPU"][0] < 60


def test_a_20000_by_20000_png_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(solid_png(20_000))
    with DecodePool(1, modules=HOSTILE) as pool:
        with pytest.raises(ImageTooLarge):
            pool.submit(decode_picture, path, SMALL, PictureLimits()).result(60)
        assert pool.submit(hostile_files.peak_rss).result(60) <= 200 << 20


def test_a_png_at_the_cap_is_decoded_within_the_default_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(solid_png(7_000))
    with DecodePool(1, modules=HOSTILE) as pool:
        assert (
            pool.submit(decode_picture, path, SMALL, PictureLimits(), OutputFile(tmp_path / "small.webp"))
            .result(60)
            .width
            == 7_000
        )


def test_the_pool_outlives_idle_children_that_are_killed() -> None:
    with DecodePool(2, STRICT, modules=HOSTILE) as pool:
        for _ in range(2):
            pids = list({pool.submit(hostile_files.read_pid).result(60) for _ in range(20)})
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda pids=pids: not list_running(pids))  # type: ignore[misc]
            assert [pool.submit(hostile_files.sleep, 0.01).result(60) for _ in range(4)] == [0.01] * 4


def test_the_pool_outlives_its_fork_server() -> None:
    with DecodePool(2, STRICT, modules=HOSTILE) as pool:
        child = pool.submit(hostile_files.read_pid).result(60)
        server = parent_of(child)
        processes = [server, *descendants(server)]  # the other child, too: a task that it began would die with it
        os.kill(server, signal.SIGKILL)
        assert wait_until(lambda: not list_running(processes))
        assert pool.submit(hostile_files.sleep, 0.01).result(60) == 0.01


def test_tasks_that_wait_survive_the_loss_of_the_pool() -> None:
    with DecodePool(1, STRICT, modules=HOSTILE) as pool:
        child = pool.submit(hostile_files.read_pid).result(60)
        futures = [pool.submit(hostile_files.sleep, 0.01) for _ in range(60)]
        os.kill(child, signal.SIGKILL)
        results = [future.exception(30) for future in futures]
        assert sum(error is not None for error in results) <= 1


def test_a_sigterm_to_the_whole_group_leaves_the_children_to_the_service() -> None:
    with DecodePool(1, modules=HOSTILE) as pool:
        child = pool.submit(hostile_files.read_pid).result(60)
        future = pool.submit(hostile_files.sleep, 0.5)
        time.sleep(0.1)
        for pid in (child, parent_of(child)):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        assert future.result(60) == 0.5
        assert pool.submit(hostile_files.read_pid).result(60) == child


def test_cancelling_stops_the_child() -> None:
    with DecodePool(1, ChildLimits(seconds=60), modules=HOSTILE) as pool:
        child = pool.submit(hostile_files.read_pid).result(60)
        future = submit_long_task(pool, child)
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result()
        assert wait_until(lambda: not list_running([child]))
        assert pool.submit(hostile_files.sleep, 0.01).result(60) == 0.01


def test_a_child_that_the_system_kills_fails_its_own_task() -> None:
    with DecodePool(1, ChildLimits(seconds=60), modules=HOSTILE) as pool:
        child = pool.submit(hostile_files.read_pid).result(60)
        future = submit_long_task(pool, child)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(ImageCorrupt, match="killed, most likely for the memory"):
            future.result(60)
        assert pool.submit(hostile_files.sleep, 0.01).result(60) == 0.01


def test_a_large_task_delays_no_picture_and_ends_when_it_is_cancelled() -> None:
    with DecodePool(1, STRICT, modules=HOSTILE) as pool:
        large = pool.submit(hostile_files.sleep, 60, seconds=90)
        assert [pool.submit(hostile_files.sleep, 0.01).result(60) for _ in range(4)] == [0.01] * 4
        server = parent_of(pool.submit(hostile_files.read_pid).result(60))
        assert wait_until(lambda: len(list_running(descendants(server))) == 2)
        assert large.cancel()
        assert wait_until(lambda: len(list_running(descendants(server))) == 1)


def test_close_kills_the_children_and_answers_every_caller() -> None:
    pool = DecodePool(2, ChildLimits(seconds=60), modules=HOSTILE)
    child = pool.submit(hostile_files.read_pid).result(60)
    futures = [pool.submit(hostile_files.sleep, 30) for _ in range(10)]
    time.sleep(0.2)
    pool.close()
    for future in futures:
        assert isinstance(future.exception(1), Overloaded)
    assert not list_running([child])
    with pytest.raises(Overloaded):
        pool.submit(hostile_files.read_pid).result(1)


SERVICE = """
import sys, time
if __name__ == "__main__":
    sys.path.insert(0, {root!r})
    from app.decode.limits import ChildLimits
    from app.decode.pool import DecodePool
    from tests.support import hostile_files
    pool = DecodePool(2, ChildLimits(seconds=60, cpu_seconds=60), modules=["tests.support.hostile_files"])
    pool.prewarm()
    pids = set()
    while len(pids) < 2:
        pids |= {{future.result() for future in [pool.submit(hostile_files.read_pid) for _ in range(10)]}}
    futures = [pool.submit(hostile_files.loop_forever) for _ in range(sys.argv.count("busy") * 2)]
    time.sleep(0.3)
    print(*pids, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("load", ["busy", "idle"])
def test_children_die_with_a_parent_that_is_killed(tmp_path: Path, load: str) -> None:
    script = tmp_path / "service"
    script.write_text(SERVICE.format(root=str(ROOT)))
    with subprocess.Popen([sys.executable, str(script), load], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        server = parent_of(pids[0])
        assert len(list_running([*pids, server])) == 3
        parent.kill()
    assert wait_until(lambda: not list_running([*pids, server]))


def test_what_a_child_imports_of_the_command_is_light() -> None:
    code = "import app, sys; print(sorted({'click', 'pydantic', 'numpy', 'torch'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout == "[]\n"
