from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from app.core.errors import StartupError
from app.core.settings import Settings, count_cores, find_unknown_variables


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SIGHTLINE_{name.upper()}", raising=False)


def test_every_setting_has_a_default_and_a_description() -> None:
    Settings()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_the_environment_is_read_under_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_PORT", "1234")
    monkeypatch.setenv("SIGHTLINE_INSECURE", "1")
    monkeypatch.setenv("SIGHTLINE_UNKNOWN", "x")
    monkeypatch.setenv("PORT", "9")
    settings = Settings()
    assert (settings.port, settings.insecure) == (1234, True)


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("SIGHTLINE_MAX_IMAGE_PIXEL", "SIGHTLINE_MAX_IMAGE_PIXELS"),
        ("SIGHTLINE_DATADIR", "SIGHTLINE_DATA_DIR"),
        ("sightline_worker", "SIGHTLINE_WORKERS"),
        ("SIGHTLINE_HTTP_PORT", "SIGHTLINE_PORT"),
    ],
)
def test_a_variable_that_is_no_setting_is_named_with_the_nearest(variable: str, near: str) -> None:
    (told,) = find_unknown_variables({variable: "8000", "SIGHTLINE_PORT": "1", "PATH": "/bin"})
    assert told == f"there is no setting {variable}; did you mean {near}?"


def test_variables_of_service_links_and_of_the_deployment_are_passed_over() -> None:
    links = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_8000_TCP", "PORT_8000_TCP_ADDR")
    others = ("PUBLISH", "MEMORY", "USER", "PASSWORD_HASH")
    environment = {f"SIGHTLINE_{name}": "10.0.0.1" for name in (*links, "WEB_SERVICE_HOST", *others)}
    assert find_unknown_variables({**environment, "SIGHTLINE_WEB_PORT": "tcp://10.0.0.1:80"}) == []
    assert len(find_unknown_variables({"SIGHTLINE_XYZ": ""})) == 1


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose passes `${NAME:-}` as an empty text."""
    for name in Settings.model_fields:
        monkeypatch.setenv(f"SIGHTLINE_{name.upper()}", "")
    settings = Settings()
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SIGHTLINE_{name.upper()}")
    assert settings == Settings()


@pytest.mark.parametrize("written", ['"{}"', "'{}'", " {} ", "{}\r", '"{}"\r'])
def test_what_a_file_of_variables_puts_around_a_value_is_no_part_of_it(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`docker run --env-file` passes quotes on, and Windows ends lines with a carriage return."""
    for name, value in (("DATA_DIR", "my photos"), ("PORT", "8001"), ("FETCH", "true"), ("LOG_LEVEL", "WARNING")):
        monkeypatch.setenv(f"SIGHTLINE_{name}", written.format(value))
    monkeypatch.setenv("SIGHTLINE_WORKERS", " ")
    settings = Settings()
    assert (settings.data_dir, settings.port, settings.fetch) == (Path("my photos"), 8001, True)
    assert (settings.log_level, settings.workers) == ("warning", Settings.model_fields["workers"].default)


def test_what_kubernetes_sets_for_a_service_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    links = {
        "SIGHTLINE_PORT": "tcp://10.96.12.3:9000",
        "SIGHTLINE_SERVICE_HOST": "10.96.12.3",
        "SIGHTLINE_SERVICE_PORT": "9000",
        "SIGHTLINE_SERVICE_PORT_HTTP": "9000",
        "SIGHTLINE_PORT_9000_TCP": "tcp://10.96.12.3:9000",
        "SIGHTLINE_PORT_9000_TCP_PROTO": "tcp",
        "SIGHTLINE_PORT_9000_TCP_PORT": "9000",
        "SIGHTLINE_PORT_9000_TCP_ADDR": "10.96.12.3",
        "SIGHTLINE_WEB_PORT": "udp://[fd00::1]:9000",
    }
    for name, value in links.items():
        monkeypatch.setenv(name, value)
    assert Settings().port == 8000
    assert Settings(port=80).port == 80
    (told,) = find_unknown_variables(links)
    assert told.startswith("SIGHTLINE_PORT=tcp://10.96.12.3:9000 is ignored: Kubernetes")
    assert "enableServiceLinks: false" in told


def test_what_is_given_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_PORT", "1234")
    assert Settings(port=80).port == 80


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("workers", -1),
        ("batch_size", -1),
        ("decoders", 65),
        ("precision", "fp8"),
        ("log_level", "loud"),
        ("decode_seconds", 0),
        ("max_k", 0),
        ("decode_memory", 1),
        ("thumbnail_size", 4096),
        ("user_agent", "Sightline\r\nX-Evil: 1"),
        ("user_agent", "Sightline\n"),
        ("user_agent", "Sightl\u00efne"),
    ],
)
def test_values_out_of_bounds_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({name: value})


def test_models_lie_with_the_data_unless_a_folder_is_given() -> None:
    assert Settings(data_dir=Path("/data")).models == Path("/data/models")
    assert Settings(data_dir=Path("/data"), models_dir=Path("/shared")).models == Path("/shared")


def test_a_child_process_given_the_environment_has_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(data_dir=Path("/data/with space"), log_format="json", port=0, decode_seconds=2.5, model="a/b")
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_a_folder_with_odd_ends_is_the_same_one_in_a_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (" a ", "'a'", '"a b"', "a'"):
        monkeypatch.setenv("SIGHTLINE_DATA_DIR", Settings(data_dir=Path(folder)).environment()["SIGHTLINE_DATA_DIR"])
        assert Settings().data_dir == Path(folder)


def test_a_gpu_gets_larger_batches_and_children_enough_to_feed_it_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, told = Settings(), Settings(decoders=3, batch_size=7)
    for count, children in ((1, 2), (2, 2), (16, 15), (256, 64)):
        monkeypatch.setattr("app.core.settings.count_cores", lambda n=count: n)
        assert settings.decoders_for("cuda:1") == children
        assert settings.decoders_for("cpu") == 2
    assert (settings.batch_size_for("cuda"), settings.batch_size_for("cpu")) == (256, 32)
    for device in ("cpu", "cuda"):
        assert (told.decoders_for(device), told.batch_size_for(device)) == (3, 7)


@pytest.mark.parametrize(
    ("limit", "told"), [("max 100000", 8), ("250000 100000", 2), ("10000 100000", 1), ("9900000 100000", 8), (None, 8)]
)
def test_the_cores_of_a_container_are_those_that_it_may_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None, told: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    mine = tmp_path / "cgroup"
    mine.write_text("0::/system.slice/sightline.service\n")
    folder = tmp_path / "groups" / "system.slice" / "sightline.service"
    folder.mkdir(parents=True)
    if limit is not None:
        (folder / "cpu.max").write_text(f"{limit}\n")
    assert count_cores(mine, tmp_path / "groups") == told


def test_a_client_s_key_comes_from_itself_or_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("  sl_file\n")
    assert Settings().read_client_key() is None
    assert Settings(key_file=file).read_client_key() == "sl_file"
    both = Settings(key=SecretStr("sl_given"), key_file=file)
    assert both.read_client_key() == "sl_given"
    assert "sl_given" not in f"{both!r} {both} {both.environment()}"
    file.write_bytes(b"\xff")
    for wrong in (file, tmp_path / "none", tmp_path):
        with pytest.raises(StartupError, match="key file"):
            Settings(key_file=wrong).read_client_key()
