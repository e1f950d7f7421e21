"""`sightline serve`: one server process and the workers that it keeps alive."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import resource
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn

from app.api import create_app
from app.api.metrics import ServerMetrics
from app.api.timeouts import make_protocol
from app.core.errors import StartupError
from app.core.settings import Settings
from app.encoder.loader import locate_model
from app.service.service import Service
from app.worker.supervisor import WorkerSupervisor

log = logging.getLogger(__name__)

BACKLOG = 16_384  # connections not yet accepted; the system's own bound (net.core.somaxconn, 4096) is the lower one
ACCEPTED = 512  # connections accepted in a turn of the loop, between which those before are read and answered
WATCH_SECONDS = 0.2
PREPARED_SECONDS = 0.05
PULSE_SECONDS = 0.1
FORGET_PULSES = 600  # between two looks for what workers that are gone have left
SPARE_FILES = 512  # for everything that is no connection
# Python lets a thread go on for 5 ms before another may. With dozens of searches under way the event loop would wait
# that long dozens of times at each of its steps.
SWITCH_SECONDS = 0.0005


class Server(uvicorn.Server):
    """uvicorn without its signal handling: after SIGTERM we end with code 0, not by the signal."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen with the whole backlog: what uvicorn is given as one is how many asyncio accepts in a turn, too."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartupError when that is impossible."""
    located = locate_model(settings.model, settings.models)
    service = Service(settings, located)
    try:
        with (
            open_listener(settings.host, settings.port) as listener,
            asyncio.Runner() as runner,  # not uvloop: it accepts one connection a turn, and a burst waits (ADR 35)
        ):
            require_keys(service, listener)
            raise_file_limit(settings.max_connections)
            sys.setswitchinterval(SWITCH_SECONDS)
            runner.run(_serve(service, listener))
    finally:
        service.close()
    if service.fatal is not None:
        raise service.fatal


def open_listener(host: str, port: int) -> socket.socket:
    """A listening socket. Raises StartupError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit it. Without it an answer's second packet waits 40 ms for the client to confirm the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None
    return listener


def is_on_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def require_keys(service: Service, listener: socket.socket) -> None:
    """Raise StartupError when others than this machine would come in without a key."""
    settings = service.settings
    if not (is_on_loopback(listener) or settings.insecure or service.access.needed()):
        raise StartupError(
            f"others could reach {settings.host} and there is no API key: make one with `sightline keys create NAME"
            f" --scope admin --data-dir {settings.data_dir}`, or serve with --insecure"
        )


def raise_file_limit(connections: int) -> None:
    """Let this process have a file for every connection that it may hold, as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == -1 else min(wanted, hard), hard))


async def _serve(service: Service, listener: socket.socket) -> None:
    settings = service.settings
    app = create_app(service, alone=is_on_loopback(listener))
    metrics: ServerMetrics = app.state.metrics
    server = Server(
        uvicorn.Config(
            app,
            http=make_protocol(settings, metrics.refused),
            backlog=ACCEPTED,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=settings.idle_seconds,  # type: ignore[arg-type]
            timeout_graceful_shutdown=round(settings.drain_seconds),
        )
    )
    metrics.connections(lambda: len(server.server_state.connections))
    loop = asyncio.get_running_loop()
    service.start()
    address = f"http://{settings.host}:{listener.getsockname()[1]}"
    print(f"Sightline serves {settings.data_dir} at {address} (Ctrl-C ends it)", file=sys.stderr, flush=True)
    if not (is_on_loopback(listener) or service.access.needed()):
        log.warning("no key is asked for: whoever reaches %s can read, add and delete everything", address)
    watching = asyncio.create_task(_watch(service, server))
    pulse = asyncio.create_task(_pulse(service))
    working = asyncio.create_task(_work(service))

    def stop(number: int) -> None:
        server.handle_exit(number, None)
        working.cancel()  # the workers finish while the last requests do

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()
        pulse.cancel()
        if not working.cancelling():  # a second cancel would leave workers that are still finishing
            working.cancel()
        await asyncio.gather(watching, pulse, working, return_exceptions=True)


async def _watch(service: Service, server: uvicorn.Server) -> None:
    """End the server when the model turns out to be impossible."""
    while service.fatal is None:  # noqa: ASYNC110 (it is set in another thread)
        await asyncio.sleep(WATCH_SECONDS)
    server.should_exit = True


async def _work(service: Service) -> None:
    """Keep workers, once the model is there: beside a start they would only make it last longer."""
    while not service.prepared:  # noqa: ASYNC110 (it is set in another thread)
        await asyncio.sleep(PREPARED_SECONDS)
    await WorkerSupervisor(service.settings, service.metrics.count_restart).run()


async def _pulse(service: Service) -> None:
    """Measure how late the event loop is: whatever blocks it, everyone waits for."""
    loop = asyncio.get_running_loop()
    while True:
        for _ in range(FORGET_PULSES):
            due = loop.time() + PULSE_SECONDS
            await asyncio.sleep(PULSE_SECONDS)
            service.metrics.observe_loop_lag(max(0.0, loop.time() - due))
        await asyncio.to_thread(service.reports.absorb_dead_workers)
