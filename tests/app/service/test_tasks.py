from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import TypeAdapter
from pydantic_core import to_json

from app.core.errors import InProgress, NotFound, Overloaded
from app.core.types import ItemError, Job, JobState
from app.service.tasks import Handler, TaskContext, TaskRunner
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.sql import Connection
from tests.support.makers import Switched
from tests.support.servers import wait_until

WAIT = 20.0


@contextmanager
def running(library: Library, **handlers: Handler) -> Iterator[TaskRunner]:
    """A runner of these handlers."""
    runner = TaskRunner(library.database, lambda: True)
    for kind, handler in handlers.items():
        runner.register(kind, handler)
    runner.start()
    try:
        yield runner
    finally:
        runner.close()


def wait_for_state(library: Library, id: str, state: JobState) -> Job:
    jobs = JobService(library)
    wait_until(lambda: jobs.get(id).state is state, WAIT, lambda: jobs.get(id))
    return jobs.get(id)


def count(context: TaskContext) -> Mapping[str, Any]:
    for n in range(context.parameters["n"] + 1):
        context.report(n, context.parameters["n"])
    return {"counted": context.parameters["n"], "in": context.collection}


def read_states(c: Connection) -> list[str]:
    """The states of all jobs, whether they are paused or not."""
    return [state for (state,) in c.execute("SELECT state FROM jobs")]


class Stuck:
    """A handler that goes on until it is stopped, or released."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.release = threading.Event()

    def __call__(self, context: TaskContext) -> Mapping[str, Any]:
        self.begun.release()
        while not self.release.wait(0.01):
            context.report(1, 2)
        return {}

    def wait_until_begun(self) -> None:
        assert self.begun.acquire(timeout=WAIT)


def test_a_task_gives_its_job_a_result(library: Library) -> None:
    with running(library, count=count):
        made = JobService(library).add_task("default", "count", {"n": 3})
        assert (made.state, made.kind, made.is_task, made.result) == (JobState.QUEUED, "count", True, None)
        job = wait_for_state(library, made.id, JobState.SUCCEEDED)
    assert (job.result, job.error, job.done, job.total) == ({"counted": 3, "in": "default"}, None, 3, 3)
    assert job.started_at
    assert job.finished_at
    assert TypeAdapter(Job).validate_json(to_json(job)) == job  # as an Idempotency-Key keeps it


def test_a_failed_task_says_why_keeps_its_figures_and_can_be_retried(library: Library) -> None:
    good = threading.Event()

    def fail(context: TaskContext) -> Mapping[str, Any]:
        context.result["tried"] = 5
        if not good.is_set():
            raise Overloaded("five are too many")
        return {"won": True}

    with running(library, fail=fail):
        made = JobService(library).add_task("default", "fail", {})
        job = wait_for_state(library, made.id, JobState.FAILED)
        assert (job.error, job.result) == (ItemError("overloaded", "five are too many"), {"tried": 5})
        good.set()
        JobService(library).retry(made.id)
        job = wait_for_state(library, made.id, JobState.SUCCEEDED)
    assert (job.error, job.result) == (None, {"tried": 5, "won": True})


def test_an_unexpected_error_fails_the_task_alone(library: Library) -> None:
    def crash(context: TaskContext) -> Mapping[str, Any]:
        raise RuntimeError("at /secret/place")

    with running(library, crash=crash, count=count):
        jobs = JobService(library)
        ids = [jobs.add_task("default", kind, {"n": 1}).id for kind in ("crash", "unheard-of", "count")]
        for id in ids[:2]:
            error = wait_for_state(library, id, JobState.FAILED).error
            assert error == ItemError("internal", "the server could not do this; its log says why")
        wait_for_state(library, ids[2], JobState.SUCCEEDED)


def test_a_cancelled_task_ends_and_the_next_begins(library: Library) -> None:
    stuck, jobs = Stuck(), JobService(library)
    with running(library, stuck=stuck, count=count):
        first, second = (jobs.add_task("default", kind, {"n": 1}).id for kind in ("stuck", "count"))
        stuck.wait_until_begun()
        assert jobs.get(second).state is JobState.QUEUED
        assert jobs.cancel(first).state is JobState.CANCELLED
        wait_for_state(library, second, JobState.SUCCEEDED)
    assert (jobs.get(first).state, jobs.get(first).result) == (JobState.CANCELLED, None)


def test_a_paused_task_begins_anew_when_it_is_resumed(library: Library) -> None:
    stuck, jobs = Stuck(), JobService(library)
    with running(library, stuck=stuck):
        id = jobs.add_task("default", "stuck", {}).id
        stuck.wait_until_begun()
        assert jobs.pause(id).state is JobState.PAUSED
        wait_until(
            lambda: library.database.read(read_states) == ["queued"], WAIT, lambda: library.database.read(read_states)
        )
        jobs.resume(id)
        stuck.wait_until_begun()
        stuck.release.set()
        wait_for_state(library, id, JobState.SUCCEEDED)


def test_a_task_that_the_end_of_the_server_interrupted_begins_anew(library: Library) -> None:
    stuck, jobs = Stuck(), JobService(library)
    with running(library, stuck=stuck):
        id = jobs.add_task("default", "stuck", {}).id
        stuck.wait_until_begun()
    assert jobs.get(id).state is JobState.QUEUED
    library.database.write(lambda c: c.execute("UPDATE jobs SET state = 'running'"))  # as a kill leaves it
    stuck.release.set()
    with running(library, stuck=stuck):
        wait_for_state(library, id, JobState.SUCCEEDED)


def test_no_task_begins_before_the_model_is_there(library: Library) -> None:
    ready = threading.Event()
    runner = TaskRunner(library.database, ready.is_set)
    runner.register("count", count)
    runner.start()
    id = JobService(library).add_task("default", "count", {"n": 1}).id
    runner.wake()
    assert JobService(library).get(id).state is JobState.QUEUED
    ready.set()
    runner.wake()
    wait_for_state(library, id, JobState.SUCCEEDED)
    runner.close()


def test_one_collection_has_one_task_of_a_kind(library: Library) -> None:
    jobs = JobService(library)
    id = jobs.add_task("default", "count", {}).id
    with pytest.raises(InProgress, match=f"the job {id} does this already"):
        jobs.add_task("default", "count", {})
    jobs.add_task("default", "other", {})
    jobs.cancel(id)
    jobs.add_task("default", "count", {})
    with pytest.raises(NotFound):
        jobs.add_task("nowhere", "count", {})


def test_a_server_that_was_stopped_while_another_began_the_task_anew_changes_nothing(library: Library) -> None:
    """Both were the leader, one after the other; the handler of the first goes on for a while."""
    first, second = Switched(), Switched()
    second.is_leader = False
    stuck, entered = threading.Event(), threading.Semaphore(0)
    kept: list[str] = []

    def stay(context: TaskContext) -> Mapping[str, Any]:
        entered.release()
        stuck.wait(WAIT)
        context.write(lambda c: kept.append("first"))
        return {"by": "first"}

    def finish(context: TaskContext) -> Mapping[str, Any]:
        context.write(lambda c: kept.append("second"))
        return {"by": "second"}

    runners = [TaskRunner(library.database, lambda: True, membership=one) for one in (first, second)]
    for runner, handler in zip(runners, (stay, finish), strict=True):
        runner.register("count", handler)
        runner.start()
    try:
        id = JobService(library).add_task("default", "count", {}).id
        assert entered.acquire(timeout=WAIT)
        first.is_leader, second.is_leader = False, True
        job = wait_for_state(library, id, JobState.SUCCEEDED)
        assert job.result == {"by": "second"}
        stuck.set()
    finally:
        stuck.set()
        for runner in runners:
            runner.close()
    assert kept == ["second"]
    assert JobService(library).get(id).result == {"by": "second"}
