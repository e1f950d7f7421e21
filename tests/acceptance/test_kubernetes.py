"""The manifests of deploy/kubernetes: kustomize reads them, they agree with each other, and limit what a pod may do."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from app import __version__
from app.cli.commands.serving import serve, worker
from app.core.settings import Settings

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "deploy/kubernetes"
BASE = FOLDER / "base"
DEPLOYMENTS = ("sightline-server", "sightline-worker")
VERSIONS = {
    "Namespace": "v1",
    "ServiceAccount": "v1",
    "ConfigMap": "v1",
    "Service": "v1",
    "Deployment": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "NetworkPolicy": "networking.k8s.io/v1",
}
COMMANDS = {"serve": serve, "worker": worker}
NOT_OURS = {"PGPASSWORD", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}

needs_kustomize = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def read_yaml(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((BASE / name).read_text("utf-8")))


@functools.cache
def written() -> dict[tuple[str, str], dict[str, Any]]:
    """The objects of the base as they are written, by kind and name."""
    names = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    return {(one["kind"], one["metadata"]["name"]): one for name in names for one in read_yaml(name)}


@functools.cache
def built(overlay: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects that kustomize makes of a folder."""
    ended = subprocess.run(
        ["kubectl", "kustomize", FOLDER / overlay], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "deprecated" not in ended.stderr
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(ended.stdout)}


def pod(objects: dict[tuple[str, str], dict[str, Any]], deployment: str) -> dict[str, Any]:
    found: dict[str, Any] = objects["Deployment", deployment]["spec"]["template"]["spec"]
    return found


def test_every_file_is_named_and_every_object_has_its_version() -> None:
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    files = {path.name for path in BASE.iterdir()} - {"kustomization.yaml"}
    apart = {"secret.example.yaml", "prometheus-adapter.yaml"}  # a secret is not committed; values of another chart
    assert files == {*kustomization["resources"], "settings.env"} | apart
    for (kind, name), one in written().items():
        assert one["apiVersion"] == VERSIONS[kind], name


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_pod_has_no_rights_and_writes_to_its_cache_alone(name: str) -> None:
    spec = pod(written(), name)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["enableServiceLinks"] is False
    account = written()["ServiceAccount", spec["serviceAccountName"]]
    assert account["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    held = container["securityContext"]
    assert held == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    volumes = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"]}
    assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]} == {
        "data": "/data",
        "tmp": "/tmp",
    }
    assert all(volumes.values())
    assert spec["terminationGracePeriodSeconds"] > 2 * Settings().drain_seconds


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_pod_runs_a_command_with_options_that_it_has(name: str) -> None:
    (container,) = pod(written(), name)["containers"]
    command, *arguments = container["args"]
    options = {option for parameter in COMMANDS[command].params for option in parameter.opts}
    assert {each for each in arguments if each.startswith("--")} <= options


def test_every_setting_that_is_given_is_one_and_no_secret_is_written() -> None:
    settings = dict(line.split("=", 1) for line in (BASE / "settings.env").read_text().splitlines())
    (secret,) = read_yaml("secret.example.yaml")
    given = {*settings, *secret["stringData"]}
    ours = {name.removeprefix("SIGHTLINE_").lower() for name in given - NOT_OURS}
    assert ours <= set(Settings.model_fields)
    assert not settings.keys() & secret["stringData"].keys()
    for name in DEPLOYMENTS:
        (container,) = pod(written(), name)["containers"]
        assert "env" not in container  # neither a password nor anything else stands in a Deployment
        assert {"secretRef": {"name": secret["metadata"]["name"]}} in container["envFrom"]
    passwords = {value for name, value in secret["stringData"].items() if name != "SIGHTLINE_DATABASE"}
    assert passwords == {""}
    assert not re.search(r"//[^/@]*:[^/@]+@", secret["stringData"]["SIGHTLINE_DATABASE"])
    assert "sslmode=verify-full" in secret["stringData"]["SIGHTLINE_DATABASE"]


def test_what_selects_pods_finds_them() -> None:
    labels = {
        name: written()["Deployment", name]["spec"]["template"]["metadata"]["labels"].items() for name in DEPLOYMENTS
    }
    found: dict[str, set[str]] = {}
    for (kind, name), one in written().items():
        spec = one.get("spec", {})
        wanted = spec.get("selector") or spec.get("podSelector") or {}
        selected = wanted.get("matchLabels", wanted).items()
        if selected:
            found[f"{kind} {name}"] = {each for each, held in labels.items() if selected <= held}
    assert found == {
        "Deployment sightline-server": {"sightline-server"},
        "Deployment sightline-worker": {"sightline-worker"},
        "PodDisruptionBudget sightline-server": {"sightline-server"},
        "PodDisruptionBudget sightline-worker": {"sightline-worker"},
        "Service sightline": {"sightline-server"},
        "NetworkPolicy sightline-server": {"sightline-server"},
    }


def test_probes_ask_what_the_server_answers_at_the_port_it_listens_on() -> None:
    (container,) = pod(written(), "sightline-server")["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": Settings().port}
    probes = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert {port["targetPort"] for port in written()["Service", "sightline"]["spec"]["ports"]} == {"http"}
    (rule,) = written()["NetworkPolicy", "sightline-server"]["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [Settings().port]
    assert written()["Deployment", "sightline-server"]["spec"]["replicas"] >= 2


def test_the_number_of_workers_follows_a_metric_that_there_is() -> None:
    scaler = written()["HorizontalPodAutoscaler", "sightline-worker"]["spec"]
    assert ("Deployment", scaler["scaleTargetRef"]["name"]) in written()
    assert "replicas" not in written()["Deployment", "sightline-worker"]["spec"]  # or each apply would undo the scaling
    (metric,) = scaler["metrics"]
    name = metric["external"]["metric"]["name"]
    assert f"`{name}`" in (ROOT / "docs/reference/metrics.md").read_text("utf-8")
    ((rule,),) = [one["rules"]["external"] for one in read_yaml("prometheus-adapter.yaml")]
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].startswith(f"{name}{{")
    query = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="sightline"')
    assert promql_parser.parse(query)


@needs_kustomize
@pytest.mark.parametrize(("overlay", "suffix"), [("base", "cpu"), ("gpu", "cuda")])
def test_kustomize_builds_it_with_an_image_of_this_version(overlay: str, suffix: str) -> None:
    objects = built(overlay)
    assert {kind for kind, _ in objects} == set(VERSIONS)
    assert {one["metadata"].get("namespace", "sightline") for one in objects.values()} == {"sightline"}
    for name in DEPLOYMENTS:
        (container,) = pod(objects, name)["containers"]
        on_gpu = name == "sightline-worker" and suffix == "cuda"
        assert container["image"].endswith(f":{__version__}-{'cuda' if on_gpu else 'cpu'}")
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == on_gpu
        command, *arguments = container["args"]
        assert {each for each in arguments if each.startswith("--")} <= {
            option for parameter in COMMANDS[command].params for option in parameter.opts
        }
        (settings,) = [each["configMapRef"]["name"] for each in container["envFrom"] if "configMapRef" in each]
        assert ("ConfigMap", settings) in objects
