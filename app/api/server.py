"""`sightline serve`: one server process and the workers that it keeps alive.

The application is imported while the model loads: each takes a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import logging
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

from app.api.request_origin import parse_origins, parse_proxies
from app.core.connection_string import describe_database
from app.core.errors import StartupError
from app.core.listeners import open_listeners
from app.core.settings import Settings
from app.encoder.catalogue import find_facts
from app.encoder.loader import check_model_name
from app.service.data_dir import DATABASE_NAME
from app.service.service import Service, open_service
from app.storage.model_check import find_model_name
from app.worker.supervisor import WorkerSupervisor

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

BACKLOG = 16_384  # connections not yet accepted; the system's own bound (net.core.somaxconn, 4096) is the lower one
ACCEPTED = 512  # connections accepted in a turn of the loop, between which those before are read and answered
FATAL_SECONDS = 0.2
PREPARED_SECONDS = 0.05
PULSE_SECONDS = 0.1
PULSES_PER_CLEANUP = 600  # until the metrics of ended workers are removed again
SPARE_FILES = 512  # beside connections
# Python lets a thread go on for 5 ms before another may. With dozens of searches under way the event loop would wait
# that long dozens of times at each of its steps.
SWITCH_SECONDS = 0.0005


class Server(uvicorn.Server):
    """uvicorn without its signal handling: after SIGTERM the process ends with code 0, not by the signal."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen with the whole backlog: uvicorn's setting is also how many asyncio accepts in a turn."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartupError when that is impossible."""
    is_new = not (settings.is_cluster or (settings.data_dir / DATABASE_NAME).exists())
    if is_new:  # so that none is made; an old one may know the name better
        check_model_name(settings.model, settings.models)
    service = open_service(settings)
    is_refused = True
    try:
        check_model_name(find_model_name(service.library.database, settings.model), settings.models)
        with (
            listen(settings) as listeners,
            listen_for_immich(settings) as for_immich,
            asyncio.Runner() as runner,  # not uvloop: it accepts one connection a turn, and a burst waits (ADR 35)
        ):
            require_keys(service, listeners)
            parse_proxies(settings.trusted_proxies)  # what is wrong is said before anything starts
            parse_origins(settings.cors_origins)
            service.start()
            raise_file_limit(settings.max_connections)
            sys.setswitchinterval(SWITCH_SECONDS)
            # Its warnings are about what clients send (no HTTP, other protocols): any client could fill the log.
            logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
            runner.run(_serve(service, listeners, for_immich))
        is_refused = service.search.fatal is not None
    finally:
        service.close(refused=is_refused)
    if service.search.fatal is not None:
        raise service.search.fatal


def listen(settings: Settings) -> contextlib.AbstractContextManager[list[socket.socket]]:
    """Listening sockets, closed at the end. Raises StartupError when the address is not free."""
    return _listen(settings.host, settings.port, "host", "port")


@contextlib.contextmanager
def listen_for_immich(settings: Settings) -> Iterator[list[socket.socket]]:
    """Listening sockets as of `listen`; none where Immich is not to ask here."""
    if settings.immich_port is None:
        yield []
        return
    if settings.immich_port == settings.port != 0:
        raise StartupError("--port and --immich-port must be two ports: Immich asks without a path of its own")
    with _listen(settings.immich_host, settings.immich_port, "immich-host", "immich-port") as listeners:
        yield listeners


@contextlib.contextmanager
def _listen(host: str, port: int, host_option: str, port_option: str) -> Iterator[list[socket.socket]]:
    try:
        listeners = open_listeners(host, port, BACKLOG)
    except OSError as error:
        is_address = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        remedy = f"choose another with --{port_option}"
        if is_address:
            remedy = f"--{host_option} takes an address or a name of this machine, alone"
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror}; {remedy}") from None
    with contextlib.ExitStack() as opened:
        for listener in listeners:
            opened.enter_context(listener)
        yield listeners


def is_on_loopback(listener: socket.socket) -> bool:
    """Whether no other machine reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def require_keys(service: Service, listeners: Sequence[socket.socket]) -> None:
    """Raise StartupError when other machines could send requests without a key."""
    settings = service.settings
    if not (all(map(is_on_loopback, listeners)) or settings.insecure or service.api_keys.has_keys()):
        raise StartupError(
            f"other machines can reach {settings.host} and there is no API key: make one with"
            f" `sightline keys create NAME --scope admin {name_place(settings)}`, or serve with --insecure"
        )


def name_place(settings: Settings) -> str:
    """The option that names the data of this server to another command."""
    if settings.is_cluster:
        return f"--database {describe_database(settings.database)}"
    return f"--data-dir {settings.data_dir}"


def raise_file_limit(connections: int) -> None:
    """Raise the limit of open files to one for each connection, as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == -1 else min(wanted, hard), hard))


async def _serve(service: Service, listeners: Sequence[socket.socket], for_immich: Sequence[socket.socket]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):  # one that comes during the import waits for `stop`
        loop.add_signal_handler(number, lambda: None)
    settings = service.settings
    app, protocol = import_application(service, listeners)
    metrics = app.state.metrics
    server = Server(
        uvicorn.Config(
            add_immich(app, for_immich),
            http=protocol,
            backlog=ACCEPTED,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            reset_contextvars=True,  # else what a request sets may reach the next one of its connection
            proxy_headers=bool(proxies := parse_proxies(settings.trusted_proxies)),
            forwarded_allow_ips=proxies,
            timeout_keep_alive=settings.idle_seconds,  # type: ignore[arg-type]
            timeout_graceful_shutdown=round(settings.drain_seconds),
        )
    )
    metrics.watch_connections(lambda: len(server.server_state.connections))
    announce(service, listeners, for_immich)
    watching = asyncio.create_task(_stop_when_fatal(service, server))
    pulse = asyncio.create_task(_measure_loop_lag(service))
    working = asyncio.create_task(_run_workers(service))

    def stop(number: int) -> None:
        server.handle_exit(number, None)
        working.cancel()  # the workers finish while the last requests do

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        await server.serve(sockets=[*listeners, *for_immich])
    finally:
        watching.cancel()
        pulse.cancel()
        if not working.cancelling():  # a second cancel would leave workers that are still finishing
            working.cancel()
        await asyncio.gather(watching, pulse, working, return_exceptions=True)


def import_application(service: Service, listeners: Sequence[socket.socket]) -> tuple[FastAPI, type[asyncio.Protocol]]:
    """The application and its protocol."""
    gc.disable()
    # FastAPI would import pydantic 1, only to find that no model is one of its.
    if "pydantic.v1" not in sys.modules:
        sys.modules["pydantic.v1"] = None  # type: ignore[assignment]
    from app.api.app import create_app
    from app.api.timeouts import make_protocol

    app = create_app(service, loopback_only=all(map(is_on_loopback, listeners)))
    gc.freeze()  # what is here stays: a collection that looked through all of it took a tenth of a second
    gc.enable()
    return app, make_protocol(service.settings, app.state.threads, app.state.metrics.count_refusal)


def announce(service: Service, listeners: Sequence[socket.socket], for_immich: Sequence[socket.socket]) -> None:
    """Tell the person who started the server where it is, and what to know about it."""
    settings = service.settings
    address = format_address(settings.host, listeners[0])
    place = describe_database(settings.database) if settings.is_cluster else settings.data_dir
    lines = [f"Sightline serves {place} at {address} (Ctrl-C ends it)"]
    if for_immich:
        where = format_address(settings.immich_host, for_immich[0])
        lines.append(f"Immich can ask for vectors at {where}, without a key")
    if hint := find_facts(find_model_name(service.library.database, settings.model)).hint:
        lines.append(f"model: {hint}")
    print("\n".join(lines), file=sys.stderr, flush=True)
    if not (all(map(is_on_loopback, listeners)) or service.api_keys.has_keys()):
        log.warning("no key is needed: everybody who reaches %s can read, add and delete everything", address)


def add_immich(app: FastAPI, listeners: Sequence[socket.socket]) -> ASGIApp:
    """The application of all listeners; `listeners` are those for Immich alone."""
    if not listeners:
        return app
    from app.api.wires.immich import PortDispatch, create_immich_app

    immich = create_immich_app(app, loopback_only=all(map(is_on_loopback, listeners)))
    return PortDispatch(app, immich, listeners[0].getsockname()[1])


def format_address(host: str, listener: socket.socket) -> str:
    """The URL of the server."""
    name, port = listener.getsockname()[:2]
    if host != "localhost":
        name = host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


async def _stop_when_fatal(service: Service, server: uvicorn.Server) -> None:
    """End the server when the model can never be loaded."""
    while service.search.fatal is None:  # noqa: ASYNC110 (another thread sets it)
        await asyncio.sleep(FATAL_SECONDS)
    server.should_exit = True


async def _run_workers(service: Service) -> None:
    """Start the workers when the model is loaded: earlier they would only slow its loading down."""
    while not service.search.is_prepared:  # noqa: ASYNC110 (another thread sets it)
        await asyncio.sleep(PREPARED_SECONDS)
    settings = service.settings
    # In a cluster, a server without workers leaves the second passes to `sightline worker`, too.
    kinds = service.enrichment.kinds if settings.workers or not settings.is_cluster else ()
    await WorkerSupervisor(settings, service.metrics.restarts.inc, kinds).run()


async def _measure_loop_lag(service: Service) -> None:
    """Measure how late the event loop is: every request waits for what blocks it."""
    loop = asyncio.get_running_loop()
    while True:
        for _ in range(PULSES_PER_CLEANUP):
            due = loop.time() + PULSE_SECONDS
            await asyncio.sleep(PULSE_SECONDS)
            service.metrics.loop_lag.observe(max(0.0, loop.time() - due))
        await asyncio.to_thread(service.worker_metrics.absorb_dead_workers)
