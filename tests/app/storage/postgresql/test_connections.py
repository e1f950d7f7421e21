"""How processes reach PostgreSQL: TLS or none, passwords that change, machines whose clocks are an hour apart."""

from __future__ import annotations

import datetime as dt
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.core.errors import Overloaded, StartupError
from app.storage.address import open_database
from app.storage.sql import Connection, fetch_all, fetch_number
from app.storage.tables import jobs, work_queue
from tests.support.cluster import free_port
from tests.support.makers import claim, insert
from tests.support.postgresql import QUICK, PostgresqlServer, find_binaries, find_user
from tests.support.servers import wait_until

HAS_TLS = "SELECT ssl::int FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
LEASE = 2.0
# A worker on a machine whose clock is wrong. It claims a picture, adds a job, and says when each ends or began.
WORKER = f"""
import datetime, sys, time
from app.core import clock
from app.storage.address import open_database
from app.storage.membership import ClusterMembership
from app.storage.sql import fetch_one
from app.storage.tables import jobs, work_queue
address, skew = sys.argv[1], float(sys.argv[2])
wall = time.time
time.time = lambda: wall() + skew
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=skew)
clock.datetime = Clock
assert abs(clock.unix_now() - wall()) > 3000
member = ClusterMembership(address, "worker")
member.start()
while abs(clock.unix_now() - wall()) > 60:  # until the database has told the time
    time.sleep(0.02)
database = open_database(address)
database.write(lambda c: work_queue.claim_images(c, "there", {LEASE}, 8))
database.write(lambda c: work_queue.renew_leases(c, "there", {LEASE}))
job = database.write(lambda c: jobs.create(c, "default", "bulk"))
print(job, flush=True)
time.sleep(600)
"""


@pytest.fixture
def own_server() -> Iterator[PostgresqlServer]:
    """A server with a port, which this test may change."""
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    port = free_port()
    with closing(PostgresqlServer(QUICK, port)) as server:
        (server.folder / "port").write_text(str(port))
        yield server


def by_port(server: PostgresqlServer, more: str, user: str = "sightline") -> str:
    return f"postgresql://{user}@localhost:{(server.folder / 'port').read_text()}/postgres?{more}"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for `localhost`, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "server.crt", folder / "server.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    formats = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, *formats))
    private.chmod(0o600)
    return certificate, private


def test_tls_that_is_asked_for_is_used_or_refused(own_server: PostgresqlServer, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="sslmode asks for TLS, and the server has none") as refused:
        open_database(by_port(own_server, "sslmode=require", "sightline:s3cret"))
    assert "s3cret" not in str(refused.value)
    with closing(open_database(by_port(own_server, "sslmode=prefer"))) as database:
        assert database.write(lambda c: fetch_number(c, HAS_TLS)) == 0

    certificate, private = make_certificate(tmp_path)
    for file in (certificate, private):
        shutil.copy(file, own_server.data)
        if user := find_user():
            shutil.chown(own_server.data / file.name, user)
    (own_server.data / private.name).chmod(0o600)
    own_server.execute("ALTER SYSTEM SET ssl = on")
    own_server.execute("SELECT pg_reload_conf()")
    wait_until(lambda: own_server.execute("SHOW ssl") == [("on",)], 20)
    checked = f"sslmode=verify-full&sslrootcert={certificate}"
    with closing(open_database(by_port(own_server, checked))) as database:
        assert database.write(lambda c: fetch_number(c, HAS_TLS)) == 1
        assert database.read(lambda c: fetch_number(c, HAS_TLS)) == 1
    other, _ = make_certificate(Path(shutil.copytree(tmp_path, tmp_path / "other")))
    with pytest.raises(StartupError, match="certificate verify failed") as refused:
        open_database(by_port(own_server, f"sslmode=verify-full&sslrootcert={other}", "sightline:s3cret"))
    assert "s3cret" not in str(refused.value)


def test_a_password_that_changes_while_a_server_runs_is_never_repeated(
    own_server: PostgresqlServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    own_server.execute("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'f1rst'")
    (own_server.data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    own_server.execute("SELECT pg_reload_conf()")
    said: list[str] = []

    def fails(work: str) -> bool:
        try:
            database.write(read_one) if work == "write" else database.read(read_one)
        except Overloaded as error:
            said.append(f"{error.detail} {error!r} {error.__cause__!r}")
            return True
        return False

    with closing(open_database(by_port(own_server, "gssencmode=disable", "app:f1rst"))) as database:
        assert database.read(read_one) == 1
        own_server.execute("ALTER ROLE app PASSWORD 's3cond'")
        for work in ("write", "read"):
            own_server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
            wait_until(lambda work=work: fails(work), 20)
        own_server.execute("ALTER ROLE app PASSWORD 'f1rst'")
        wait_until(lambda: not fails("write") and not fails("read"), 20)
    assert said
    assert "f1rst" not in caplog.text + "".join(said)


def read_one(c: Connection) -> int:
    return fetch_number(c, "SELECT 1")


@pytest.mark.parametrize("skew", [3600, -3600])
def test_leases_of_a_machine_whose_clock_is_an_hour_off_end_in_time(postgresql: PostgresqlServer, skew: int) -> None:
    """This process has the right clock."""

    def expire(c: Connection) -> bool:
        ((owner, left),) = fetch_all(c, "SELECT lease_owner, lease_until - lease_clock() FROM images")
        if owner is None:  # the worker has not claimed it yet
            return False
        lost, _ = work_queue.expire_leases(c, [], 3)
        assert (owner, left <= LEASE) == ("there", True)
        assert lost == (left < 0) or abs(left) < 0.5  # which may pass between the two
        return lost == 1

    with postgresql.database() as address, closing(open_database(address)) as database:
        insert(database, 1)
        with subprocess.Popen(
            [sys.executable, "-c", WORKER, address, str(skew)], stdout=subprocess.PIPE, text=True
        ) as worker:
            try:
                assert worker.stdout is not None
                id = worker.stdout.readline().strip()
                wait_until(lambda: database.write(expire), 20)
                job = database.read(lambda c: jobs.get(c, id))
            finally:
                worker.kill()
        assert [lease.attempts for lease in claim(database, "here")] == [2]
        assert job is not None
        age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(job.created_at)
        assert abs(age) < dt.timedelta(seconds=abs(skew) / 2)
