"""Tasks: jobs that are no imports. A thread of the server does them, the oldest first, and another the long ones."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from app.core.background import BackgroundLoop
from app.core.errors import SightlineError
from app.core.logging import bind_log_fields
from app.core.types import ItemError, Job, JobState
from app.storage.database import Database
from app.storage.membership import SINGLE_SERVER, Duty, Membership
from app.storage.sql import Connection
from app.storage.tables import jobs, tasks

T = TypeVar("T")

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
LOOK_SECONDS = 0.3  # between two looks whether a running task was cancelled, and between two reports


class TaskStopped(Exception):
    """The job was cancelled or paused, or the server stops."""


class TaskContext:
    """What a handler knows of its job. `result` becomes the result of the job, also of one that fails. `runner` names
    this run of it."""

    def __init__(
        self,
        database: Database,
        job_id: str,
        runner: str,
        parameters: Mapping[str, Any],
        is_closing: Callable[[], bool],
    ) -> None:
        self.job_id = job_id
        self.runner = runner
        self.parameters = parameters
        self.result: dict[str, Any] = {}
        self._database = database
        self._is_closing = is_closing
        self._looked_at = self._reported_at = 0.0
        job = database.read(self._read_running)
        self.collection, self.kind = job.collection, job.kind

    def check(self) -> None:
        """Raise TaskStopped if the task must end now. Call it at least twice a second."""
        if self._is_closing():
            raise TaskStopped
        if (now := time.monotonic()) - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._database.read(self._read_running)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work(connection)` in a transaction. Raises TaskStopped if this run is no longer that of the task."""

        def guarded(c: Connection) -> T:
            self._read_running(c)
            return work(c)

        return self._database.write(guarded)

    def tell(self) -> None:
        """Let the job show what `result` holds so far."""
        self._database.write(lambda c: tasks.tell(c, self.job_id, self.runner, self.result))

    def report(self, done: int, total: int) -> None:
        """Say how far the task is, in steps of its own, and `check`."""
        self.check()
        if (now := time.monotonic()) - self._reported_at >= LOOK_SECONDS or done == total:
            self._reported_at = now
            self._database.write(lambda c: tasks.report(c, self.job_id, self.runner, done, total))

    def _read_running(self, c: Connection) -> Job:
        """The job. Raises TaskStopped unless this run of it is under way."""
        job = jobs.get(c, self.job_id)
        if job is None or job.state is not JobState.RUNNING or not tasks.is_run_by(c, self.job_id, self.runner):
            raise TaskStopped
        return job


Handler = Callable[[TaskContext], Mapping[str, Any]]
"""Does the work of one kind and returns the result of the job; a SightlineError that it raises fails the job.

After a kill it begins anew: what it stores must allow that."""


class TaskRunner(BackgroundLoop):
    """Runs the tasks of one server once `is_ready` (the model is loaded): the `long` ones, or the others.

    Of a cluster, one server runs them. Another that takes this duty begins anew what was running.
    """

    def __init__(
        self,
        database: Database,
        is_ready: Callable[[], bool],
        *,
        long: bool = False,
        membership: Membership = SINGLE_SERVER,
    ) -> None:
        self._long = long
        self._membership = membership
        self._duty = Duty.LONG_TASKS if long else Duty.TASKS
        super().__init__("tasks", self._run_next, "a task cannot be run")
        self._database = database
        self._is_ready = is_ready
        self._handlers: dict[str, Handler] = {}
        self._count_commits = database.watch_commits()
        self._idle_at = -1
        self._is_recovered = False  # whether the tasks wait again that a kill interrupted

    def register(self, kind: str, handler: Handler) -> None:
        """Let `handler` do the jobs of this kind."""
        self._handlers[kind] = handler

    def _must_stop(self) -> bool:
        return self.is_closing() or not self._membership.leads(self._duty)

    def _run_next(self) -> float:
        if not self._membership.leads(self._duty):
            self._is_recovered, self._idle_at = False, -1
            return POLL_SECONDS
        if not self._is_recovered:
            self._database.write(lambda c: tasks.release_all(c, long=self._long))
            self._is_recovered = True
        commit = self._count_commits()
        if commit == self._idle_at or not self._is_ready():
            return POLL_SECONDS
        runner = uuid.uuid4().hex
        claimed = self._database.write(lambda c: tasks.claim(c, runner, long=self._long))
        if claimed is None:
            self._idle_at = commit
            return POLL_SECONDS
        with bind_log_fields(job=claimed[0]):
            self._run_task(claimed[0], runner, claimed[1])
        return 0.0

    def _run_task(self, id: str, runner: str, parameters: Mapping[str, Any]) -> None:
        error: ItemError | None = None
        result: dict[str, Any] = {}
        try:
            context = TaskContext(self._database, id, runner, parameters, self._must_stop)
            result = context.result
            log.info("task begun: %s", context.kind)
            result |= self._handlers[context.kind](context)
        except TaskStopped:
            self._database.write(lambda c: tasks.release(c, id, runner))  # a cancelled one stays so
            return
        except SightlineError as failure:
            error = ItemError(failure.code, failure.detail)
        except Exception:
            log.exception("the task failed")
            error = ItemError("internal", "the server could not do this; its log says why")
        self._database.write(lambda c: tasks.finish(c, id, runner, result, error))
        log.info("task ended: %s", error.detail if error else "succeeded")
