"""The files in deploy/ and compose are valid, agree with each other, and limit what the service may do."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core.settings import Settings
from tests.acceptance.dockerfile import read_steps

ROOT = Path(__file__).parent.parent.parent
COMPOSE = ROOT / "docker-compose.yml"
UNIT = ROOT / "deploy/sightline.service"
EXPOSED = 15  # of 100, by systemd's own count


MILVUS = ("--file", "docker-compose.yml", "--file", "deploy/milvus.yml")


def run_compose(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run docker compose, which needs no engine to read a file."""
    found: tuple[str, ...] | None = None
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]):
            told = subprocess.run([*command, "version"], capture_output=True, text=True, check=False)
            if told.returncode == 0 and "ompose" in told.stdout:
                found = found or command
    if found is None:
        pytest.skip("docker compose is not installed (scripts/system)")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SIGHTLINE_", "COMPOSE_"))}
    command_line = [*found, *arguments]
    environment |= variables
    return subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


def compose(*arguments: str, **variables: str) -> str:
    ended = run_compose(*arguments, **variables)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@functools.cache
def services(profile: str) -> dict[str, Any]:
    """The services of a profile, as compose reads them."""
    read: dict[str, Any] = yaml.safe_load(compose("--profile", profile, "config"))["services"]
    return {name: service for name, service in read.items() if profile in service.get("profiles", [profile])}


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_compose_starts_one_bounded_service_a_profile(profile: str) -> None:
    ((_, service),) = services(profile).items()
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert float(service["cpus"]) > 0
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert len(service["volumes"]) == 1
    assert "127.0.0.1" in str(service["ports"])
    assert service["build"]["args"] == {"TORCH": "cuda" if profile == "gpu" else "cpu"}
    assert ("nvidia" in str(service.get("deploy"))) == (profile == "gpu")


def test_compose_starts_on_the_cpu_when_nothing_is_said() -> None:
    assert "COMPOSE_PROFILES=cpu" in (ROOT / ".env").read_text().splitlines()
    assert list(services("cpu")) == ["sightline"]
    assert list(services("gpu")) == ["sightline-gpu"]


def test_compose_has_a_milvus_of_pinned_versions_that_only_this_machine_reaches() -> None:
    told = compose(*MILVUS, "config", MILVUS_PASSWORD="first-secret", MINIO_PASSWORD="second-secret")
    found = {name: one for name, one in yaml.safe_load(told)["services"].items() if name.startswith("milvus")}
    assert set(found) == {"milvus", "milvus-etcd", "milvus-minio"}
    milvus, minio = found["milvus"]["environment"], found["milvus-minio"]["environment"]
    assert milvus["COMMON_SECURITY_AUTHORIZATIONENABLED"] == "true"
    assert milvus["COMMON_SECURITY_DEFAULTROOTPASSWORD"] == "first-secret"
    assert milvus["MINIO_SECRET_ACCESS_KEY"] == minio["MINIO_ROOT_PASSWORD"] == "second-secret"
    assert milvus["MINIO_ACCESS_KEY_ID"] == minio["MINIO_ROOT_USER"] != "minioadmin"
    for service in found.values():
        assert re.search(r":(v\d+\.\d+\.\d+|RELEASE\.[\dTZ-]+)(@sha256:[0-9a-f]{64})?$", service["image"])
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"]
        assert list(service["networks"]) == ["milvus"]
        assert re.search(
            r"milvus(-etcd|-minio)?\b", str(service["volumes"])
        )  # each form of compose writes it otherwise
    published = {name: str(service["ports"]) for name, service in found.items() if service.get("ports")}
    assert list(published) == ["milvus"]
    assert re.search(r"127\.0\.0\.1.*19530", published["milvus"])
    assert set(found["milvus"]["depends_on"]) == {"milvus-etcd", "milvus-minio"}


@pytest.mark.parametrize("lacking", ["MILVUS_PASSWORD", "MINIO_PASSWORD"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_milvus_without_passwords_is_refused(lacking: str, value: str | None) -> None:
    given = {"MILVUS_PASSWORD": "x", "MINIO_PASSWORD": "y"} | {lacking: value or ""}
    if value is None:
        del given[lacking]
    ended = run_compose(*MILVUS, "config", **given)
    assert ended.returncode != 0
    assert f"set {lacking}" in ended.stderr
    assert run_compose("config", **given).returncode == 0  # Sightline alone needs none


MEMBERS = ("server-1", "server-2", "worker")
PASSWORDS = {"POSTGRES_PASSWORD": "first-secret", "MINIO_PASSWORD": "second-secret"}


@functools.cache
def cluster() -> dict[str, Any]:
    """The profile `cluster`, as compose reads it."""
    read: dict[str, Any] = yaml.safe_load(compose("--profile", "cluster", "config", **PASSWORDS))
    of_profile = {name: one for name, one in read["services"].items() if "cluster" in one["profiles"]}
    return read | {"services": of_profile}


def test_a_cluster_has_two_servers_two_workers_and_what_they_store_in() -> None:
    services = cluster()["services"]
    assert set(services) == {*MEMBERS, "balancer", "postgres", "minio", "bucket"}
    assert services["worker"]["command"] == ["worker"]
    assert services["server-1"]["command"] == services["server-2"]["command"] == ["serve", "--workers", "0"]
    assert services["worker"]["deploy"]["replicas"] == 2
    for name in MEMBERS:
        one = services[name]
        given = one["environment"]
        assert given["SIGHTLINE_DATABASE"] == "postgresql://sightline@postgres/sightline"  # the password is elsewhere
        assert given["PGPASSWORD"] == services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "first-secret"
        assert given["AWS_SECRET_ACCESS_KEY"] == services["minio"]["environment"]["MINIO_ROOT_PASSWORD"]
        assert given["AWS_ACCESS_KEY_ID"] == services["minio"]["environment"]["MINIO_ROOT_USER"] != "minioadmin"
        assert (one["read_only"], one["init"], one["cap_drop"]) == (True, True, ["ALL"])
        assert one["mem_limit"]
        assert one["pids_limit"]
        assert len(one["volumes"]) == 1  # of its own, without a name
        assert not one.get("ports")
        assert set(one["depends_on"]) == {"postgres", "bucket"}
    made = "".join(map(str, services["bucket"]["command"]))
    bucket = services["server-1"]["environment"]["SIGHTLINE_MEDIA"].split("/")[2]
    assert made.endswith(f"/{bucket}")


def test_only_the_balancer_of_a_cluster_is_reached_from_outside() -> None:
    services = cluster()["services"]
    published = {name: str(one["ports"]) for name, one in services.items() if one.get("ports")}
    assert list(published) == ["balancer"]
    assert "127.0.0.1" in published["balancer"]
    assert cluster()["networks"]["store"]["internal"] is True
    for name in ("postgres", "minio", "bucket"):
        assert list(services[name]["networks"]) == ["store"]
    upstreams = re.search(r"\{\$SIGHTLINE_UPSTREAM:(.*?)\}", (ROOT / "deploy/Caddyfile.cluster").read_text())
    assert upstreams
    assert upstreams[1].split() == [f"{name}:8000" for name in MEMBERS[:2]]
    assert any("./deploy/Caddyfile.cluster" in line for line in COMPOSE.read_text().splitlines())


def test_the_images_of_a_cluster_have_a_version() -> None:
    for name, one in cluster()["services"].items():
        if name not in MEMBERS:
            assert re.search(r":(\d+\.\d+(\.\d+)?-\w+|RELEASE\.[\dTZ-]+)(@sha256:[0-9a-f]{64})?$", one["image"]), name
            assert one["image"] in (ROOT / "docker-compose.yml").read_text()


@pytest.mark.parametrize(("password", "code"), [("", 1), ("short", 1), ("long enough", 127)])
def test_an_object_store_without_a_password_does_not_start(password: str, code: int) -> None:
    service = cluster()["services"]["minio"]
    command = [*service["entrypoint"], *(each.replace("$$", "$") for each in service["command"])]
    environment = {"MINIO_ROOT_PASSWORD": password, "PATH": "/nowhere"}
    shell = shutil.which(command[0]) or command[0]
    ended = subprocess.run([shell, *command[1:]], capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == code  # 127: it came to the program, which is not here
    assert ("set MINIO_PASSWORD" in ended.stderr) == (code == 1)


def test_a_server_has_time_to_drain_before_it_is_killed() -> None:
    ((_, service),) = services("cpu").items()
    drain = Settings().drain_seconds
    assert int(service["stop_grace_period"].removesuffix("s")) > 2 * drain
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.M)
    assert int(seconds) > 2 * drain


def test_every_setting_that_is_given_is_one() -> None:
    dockerfile = "\n".join(step.rest for step in read_steps(ROOT / "docker/Dockerfile") if step.word == "ENV")
    given = [
        *re.findall(r"\b(SIGHTLINE_[A-Z_]+)=", dockerfile),
        *re.findall(r"\b(SIGHTLINE_[A-Z_]+)=", UNIT.read_text()),
        *re.findall(r"^ +(SIGHTLINE_[A-Z_]+):", COMPOSE.read_text(), re.M),
    ]
    assert len(given) >= 6
    assert {name.removeprefix("SIGHTLINE_").lower() for name in given} <= set(Settings.model_fields)


def test_every_variable_of_the_env_file_is_used_by_compose() -> None:
    named = re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env").read_text(), re.M)
    used = re.findall(r"\$\{([A-Z_]+):-", COMPOSE.read_text())
    needed = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "deploy/milvus.yml").read_text()))
    assert sorted(named) == sorted({"COMPOSE_PROFILES", *used, *needed})


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed (scripts/system)")
def test_the_unit_is_valid_and_little_exposed(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    command = tmp_path / "sightline"
    command.symlink_to(sys.executable)
    unit.write_text(UNIT.read_text().replace("/opt/sightline/bin/sightline", str(command)))
    for check in (["verify"], ["security", "--offline=true", f"--threshold={EXPOSED}", "--no-pager"]):
        checked = subprocess.run(["systemd-analyze", *check, unit], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert unit.name not in checked.stderr  # a word it does not know is a warning, and 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed (scripts/system)")
def test_the_unit_of_a_watched_folder_is_valid(tmp_path: Path) -> None:
    unit = tmp_path / "sightline-watch.service"
    command = tmp_path / "sightline"
    command.symlink_to(sys.executable)
    written = (ROOT / "deploy" / unit.name).read_text()
    unit.write_text(written.replace("/opt/sightline/bin/sightline", str(command)))
    arguments = ["systemd-analyze", "--user", "verify", str(unit)]
    checked = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert unit.name not in checked.stderr
    given = set(re.findall(r"\bSIGHTLINE_([A-Z_]+)", written)) - {"WATCHED"}
    assert {name.lower() for name in given} <= set(Settings.model_fields)
