"""Builder: gives live indexes a new base when that is worth it, one after the other, in the background.

The base is built by a process of its own (`app.search.build_process`) and checked whole before the index goes on with
it. A
build that fails or is killed changes nothing: the old base answers, and another try follows, more and more
rarely.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from app.core.errors import describe_error
from app.core.metrics import ProcessMetrics
from app.core.process import child_env
from app.core.types import Target
from app.search.build_process import BuildOrder
from index import snapshot
from index.errors import IndexClosed, InvalidSnapshot, SegmentDamaged
from index.factory import IndexConfig, load_sealed_segment
from index.segmented import RebuildPolicy, SegmentedIndex

log = logging.getLogger(__name__)

POLL = 1.0
STEP = 0.05
RETRY_FIRST, RETRY_LAST = 10.0, 600.0
ERROR_BYTES = 2000


@dataclass(eq=False, slots=True)
class SegmentBuild:
    """One live index and where its base comes from. `head` tells the log's last entry."""

    collection: str
    target: Target
    config: IndexConfig
    index: SegmentedIndex
    head: Callable[[], int]
    building: bool = False
    error: str | None = None
    released: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    retry: float = RETRY_FIRST
    not_before: float = 0.0


class IndexBuilder:
    """A thread that looks after sites from `take` to `release`. Any thread may call any method.

    `retry` is the first pause after a failure, in seconds.
    """

    def __init__(
        self,
        database: Path,
        policy: RebuildPolicy | None = None,
        *,
        damaged: Callable[[SegmentBuild], None] | None = None,
        metrics: ProcessMetrics | None = None,
        poll: float = POLL,
        retry: float = RETRY_FIRST,
    ) -> None:
        self._database = database
        self._policy = policy or RebuildPolicy()
        self._damaged = damaged
        self._metrics = metrics or ProcessMetrics()
        self._poll = poll
        self._retry = retry
        self._sites: list[SegmentBuild] = []
        self._faults: dict[str, str] = {}  # by the name of what is not looked after
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="builder", daemon=True)
        self._thread.start()

    def take(self, site: SegmentBuild) -> None:
        """Look after it from now on."""
        site.retry = self._retry
        with self._lock:
            self._sites.append(site)

    def release(self, site: SegmentBuild) -> None:
        """Look after it no longer; a build that runs is given up, and is over when this returns."""
        site.released.set()
        with self._lock:
            if site in self._sites:
                self._sites.remove(site)
            busy = site.building
        if busy and threading.current_thread() is not self._thread:
            site.over.wait()

    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def faults(self) -> list[str]:
        """What it tries in vain at present, other than to build."""
        with self._lock:
            looked_after = {site.config.name for site in self._sites}
        return [fault for name, fault in list(self._faults.items()) if name in looked_after]

    def close(self) -> None:
        """Give up what is being built and end. May be called again."""
        self._closing.set()
        self._thread.join()

    def build(self, site: SegmentBuild) -> None:
        """Build a base of all that the log holds now, before anybody follows: the index of `site` is not used."""
        self._process(site, site.head())

    def _run(self) -> None:
        while not self._closing.wait(self._poll):
            with self._lock:
                sites = list(self._sites)
            for site in sites:
                if self._closing.is_set():
                    return
                try:
                    self._look_after(site)
                    self._faults.pop(site.config.name, None)
                except IndexClosed:
                    continue
                except Exception as error:  # nothing may end this thread
                    log.exception("the base of %s is not looked after", site.config.name)
                    self._faults[site.config.name] = (
                        f"the base of {site.config.name} is not looked after: {describe_error(error)}"
                    )

    def _look_after(self, site: SegmentBuild) -> None:
        base = site.index.base
        if base is not None and not base.verified:
            try:
                base.verify(lambda: self._stopped(site))
            except SegmentDamaged as error:
                log.error("the base of %s is damaged (%s); it is built again", site.config.name, error)
        if base is not None and base.damage is not None:
            if self._damaged is not None and not site.released.is_set():
                self._damaged(site)
            return
        if time.monotonic() < site.not_before or not self._policy.due(site.index.facts(), site.index.still()):
            return
        with self._lock:
            if site.released.is_set():
                return
            site.building = True
            site.over.clear()
        try:
            self._renew(site)
        finally:
            with self._lock:
                site.building = False
                site.over.set()

    def _renew(self, site: SegmentBuild) -> None:
        began = time.monotonic()
        site.index.mark()
        try:
            self._process(site, site.head())
            base, _ = load_sealed_segment(site.config)
            base.verify(lambda: self._stopped(site))
            if self._stopped(site):
                return
            site.index.rebase(base)
        except (BuildFailed, SegmentDamaged, InvalidSnapshot, OSError) as error:
            site.error = str(error)
            self._metrics.observe_build(time.monotonic() - began, ok=False)
            site.not_before = time.monotonic() + site.retry
            log.warning("no new base of %s, retry in %.0f s: %s", site.config.name, site.retry, error)
            site.retry = min(site.retry * 2, RETRY_LAST)
            return
        except BuildStopped:
            return
        finally:
            site.index.unmark()
        took = time.monotonic() - began
        self._metrics.observe_build(took, ok=True)
        site.error, site.retry = None, self._retry
        site.not_before = time.monotonic() + took  # half of the time at most goes into building
        if site.config.folder is not None:
            snapshot.discard(site.config.folder)  # of the time when there was no base
        log.info("new base of %s: %d vectors in %.1f s", site.config.name, base.n, took)

    def _stopped(self, site: SegmentBuild) -> bool:
        return self._closing.is_set() or site.released.is_set()

    def _process(self, site: SegmentBuild, upto: int) -> None:
        """Run the process to its end. Raises Failed with its reason, and Stopped when nobody waits for it any more."""
        config = site.config
        order = BuildOrder(
            str(self._database),
            site.collection,
            site.target,
            config.space,
            config.d,
            upto,
            str(config.bases),
            config.name,
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "app.search.build_process", order.to_json(), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**child_env(os.environ), "OMP_WAIT_POLICY": "PASSIVE"},  # waiting threads leave the processor
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                if self._stopped(site):
                    raise BuildStopped
                time.sleep(STEP)
            said = process.stderr.read(ERROR_BYTES).decode(errors="replace") if process.stderr else ""
        finally:
            process.kill()
            process.communicate()
        if process.returncode:
            last = said.strip().splitlines()[-1:] or ["it said nothing"]
            raise BuildFailed(f"the build ended with code {process.returncode}: {last[0]}")


class BuildFailed(Exception):
    """A build that did not succeed; the message says why."""


class BuildStopped(Exception):
    """A build that nobody waits for."""
