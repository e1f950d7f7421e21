"""Build docker/Dockerfile into plain folders, without an engine, and run the result as a container runs.

The steps run in a chroot, with three differences. The base image is this machine's /usr and this interpreter. The
packages of the environment that runs the tests are mounted instead of running `scripts/install packages`. There are no
layers. So this cannot show that the lock installs, or that the base image's own libraries are enough. Everything else
is the image's own: the build context, the copied files, the installed project, the user, the variables, the health
check and the start.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

from tests.acceptance.dockerfile import Step, expand_variables, list_context, read_steps
from tests.support.processes import descendants
from tests.support.servers import wait_until

ROOT = Path(__file__).parent.parent.parent
PACKAGES = Path(sysconfig.get_paths()["purelib"])
ETC = ("ld.so.conf", "ld.so.conf.d", "login.defs", "nsswitch.conf")
DEVICES = ("null", "zero", "random", "urandom")
LOOPBACK_UP = (
    "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 1))"  # SIOCSIFFLAGS
)
FIRST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FLAGS = ("--mount", "--pid", "--fork", "--kill-child", "--ipc", "--propagation", "private")


@dataclass
class Stage:
    """One FROM of the file: a root file system, and the image's configuration."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": FIRST_PATH, "HOME": "/root"})
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    said: dict[str, Step] = field(default_factory=dict)

    def resolve_path(self, path: str) -> Path:
        return self.root / os.path.normpath(Path(self.workdir) / path).lstrip("/")

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command as root in the root file system, with write access, to its end."""
        script = "\n".join(
            [*mount_commands(self.root), enter_command(self.root, ["env", "-i", *self.variables(), *command])]
        )
        return subprocess.run(
            ["unshare", *FLAGS, "sh", "-ec", script], capture_output=True, text=True, timeout=120, check=False
        )

    def variables(self, **given: str) -> list[str]:
        return [f"{name}={value}" for name, value in {**self.args, **self.env, **given}.items()]


def make_base(root: Path) -> Stage:
    """Imitate the base image with parts of this machine."""
    for name in ("usr", "etc", "tmp", "proc", "sys", "dev", "var", "run", "root", "packages"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for path in (Path("/etc") / name for name in ETC):
        if path.is_dir():
            shutil.copytree(path, root / "etc" / path.name)
        elif path.exists():
            shutil.copy(path, root / "etc")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    stage = Stage(root)
    check_success(stage.run(["ldconfig"]))
    return stage


def mount_commands(root: Path) -> list[str]:
    """Shell commands that mount the borrowed parts; the mounts end with the mount namespace."""
    lines = [f"mount --bind {root} {root}"]
    prefix = Path(sys.base_prefix)
    shown = [(Path("/usr"), "usr"), (PACKAGES, "packages"), (Path("/sys"), "sys")]
    if prefix != Path("/usr"):
        shown.insert(1, (prefix, "usr/local"))
    for source, name in shown:
        lines += [f"mount --bind {source} {root}/{name}", f"mount -o remount,bind,ro {root}/{name}"]
    lines += [f"mount -t proc proc {root}/proc", f"mount -t tmpfs tmpfs {root}/dev", f"mkdir -m 1777 {root}/dev/shm"]
    lines += [f"touch {root}/dev/{name}; mount --bind /dev/{name} {root}/dev/{name}" for name in DEVICES]
    return lines


def enter_command(root: Path, command: list[str], user: str = "0:0") -> str:
    """The shell line that runs the command in the root. A user other than root drops all privileges."""
    uid, gid = user.split(":")
    if user != "0:0":
        ids = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        command = ["setpriv", *ids, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", *command]
    return "exec " + shlex.join(["chroot", str(root), *command])


def check_success(ended: subprocess.CompletedProcess[str]) -> str:
    """Check that a command ended with 0; returns its output."""
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def build(folder: Path) -> Stage:
    """Execute the steps; returns the last stage."""
    first: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for step in read_steps(ROOT / "docker/Dockerfile"):
        if step.word == "FROM":
            name = step.rest.partition(" AS ")[2] or str(len(stages))
            stage = stages[name] = make_base(folder / name)
        elif stage is None:
            name, _, value = step.rest.partition("=")
            first[name] = value
        else:
            carry_out(step, stage, stages)
    assert stage is not None
    assert first["PYTHON"].startswith("python:3.")
    return stage


def carry_out(step: Step, stage: Stage, stages: dict[str, Stage]) -> None:
    variables = {**stage.args, **stage.env}
    match step.word:
        case "ARG" if "=" in step.rest:
            name, _, value = step.rest.partition("=")
            stage.args[name] = value
        case "ENV":
            stage.env |= dict(word.split("=", 1) for word in shlex.split(expand_variables(step.rest, variables)))
        case "WORKDIR":
            stage.workdir = expand_variables(step.rest, variables)
            stage.resolve_path(".").mkdir(parents=True, exist_ok=True)
        case "COPY":
            copy(step, stage, stages)
        case "RUN" if step.rest == "scripts/install packages":
            lend_packages(stage)
        case "RUN":
            check_success(stage.run(["sh", "-c", f"cd {shlex.quote(stage.workdir)} && {step.rest}"]))
        case "USER":
            stage.user = step.rest
        case _:
            stage.said[step.word] = step


def copy(step: Step, stage: Stage, stages: dict[str, Stage]) -> None:
    assert set(step.flags) <= {"from"}, step
    *sources, target = step.words()
    if origin := step.flags.get("from"):
        (source,) = sources
        shutil.copytree(stages[origin].resolve_path(source), stage.resolve_path(target), symlinks=True)
        return
    for name in list_context(ROOT, ROOT / ".dockerignore"):
        for source in sources:
            if source == "." or name == Path(source) or Path(source) in name.parents:
                below = name if source == "." else name.relative_to(source)
                at = stage.resolve_path(target) / (name.name if name == Path(source) else below)
                at.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, at)


def lend_packages(stage: Stage) -> None:
    """Replace `scripts/install packages`: make its folder, and let it import the packages of the tests."""
    assert stage.resolve_path("scripts/install").is_file()
    venv = stage.env["VENV"]
    check_success(stage.run(["python3", "-m", "venv", "--without-pip", venv]))
    (site,) = stage.resolve_path(venv).glob("lib/python3*/site-packages")
    (site / "packages.pth").write_text("/packages\n")
    for file in distribution("uv").files or ():  # as it would be installed, so that it can be uninstalled
        at = Path(os.path.normpath(site / file))
        at.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file.locate(), at)


def starting(image: Stage, volume: Path, pictures: Path, arguments: list[str]) -> list[str]:
    """The command that starts a container with these arguments, like `docker run` with the options of compose."""
    where = image.said["VOLUME"].rest.lstrip("/")
    if not volume.exists():
        kept = (image.root / where).stat()
        volume.mkdir(kept.st_mode & 0o777)
        os.chown(volume, kept.st_uid, kept.st_gid)
    (image.root / "pictures").mkdir(exist_ok=True)
    command = ["env", "-i", *image.variables(), *image.said["ENTRYPOINT"].words(), *arguments]
    script = [
        *mount_commands(image.root),
        f"mount --bind {volume} {image.root}/{where}",
        f"mount --bind {pictures} {image.root}/pictures",
        f"mount -t tmpfs -o size=64m,mode=1777 tmpfs {image.root}/tmp",
        f"mount -o remount,bind,ro {image.root}",
        shlex.join([sys.executable, "-c", LOOPBACK_UP]),
        enter_command(image.root, command, image.user),
    ]
    return ["unshare", *FLAGS, "--net", "sh", "-ec", "\n".join(script)]


class Container:
    """Runs the image's command as process 1: read-only root, no capability, no network except a loopback of its own."""

    def __init__(self, image: Stage, volume: Path, pictures: Path, log: Path, key: str) -> None:
        self.key = key
        self.image = image
        started = starting(image, volume, pictures, image.said["CMD"].words())
        with open(log, "wb") as file:
            self.process = subprocess.Popen(started, stdout=file, stderr=file)
        self.log = log
        self.first: int = wait_until(lambda: (descendants(self.process.pid) or [0])[0], 30)

    def execute(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a further command inside, as the same user."""
        enter = ["nsenter", f"--target={self.first}", "--mount", "--pid", "--net", "--ipc", "--root", "--wd"]
        line = enter_command(Path("/"), self._command(command), self.image.user)
        return subprocess.run([*enter, "sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `sightline` inside, with the key in its environment."""
        return self.execute(["env", f"SIGHTLINE_KEY={self.key}", "sightline", *arguments])

    def is_healthy(self) -> bool:
        """Run the image's own health check."""
        word, *command = self.image.said["HEALTHCHECK"].rest.split(maxsplit=1)
        assert word == "CMD"
        return self.execute(Step("CMD", {}, command[0]).words()).returncode == 0

    def stop(self) -> int:
        """Send SIGTERM to process 1; returns its exit code."""
        os.kill(self.first, 15)
        return self.process.wait(40)

    def remove(self) -> None:
        self.process.kill()
        self.process.wait()

    def _command(self, command: list[str]) -> list[str]:
        return ["env", "-i", *self.image.variables(), *command]
