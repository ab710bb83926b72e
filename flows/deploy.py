"""Prefect beside the command line: a server and a worker on this machine, and the deployments of prefect.yaml."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from flows.settings import PREFIX, Settings, prefect_environment, prefect_server
from models.errors import InfrastructureError, InputError, SetupError

HOST = "127.0.0.1"
POOL = "local"
ADDRESS_FILE = "prefect-server"
"""In the state folder, while `infinidub serve` runs: where its server listens."""
PATIENCE_S = 120
GRACE_S = 20


def prefect_file() -> Path:
    """prefect.yaml of the working folder, else of this installation.

    Raises:
        SetupError: There is none.
    """
    for folder in (Path.cwd(), Path(__file__).parent.parent):
        if (folder / "prefect.yaml").is_file():
            return folder / "prefect.yaml"
    raise SetupError("there is no prefect.yaml in the working folder", hint="Copy it from infinidub's repository")


def deploy_all(settings: Settings) -> list[str]:
    """Register all deployments with the server that is set, or that `infinidub serve` runs.

    Returns:
        Their names, `flow/deployment`.

    Raises:
        InputError: No server is known.
    """
    server = prefect_server() or running_server(settings)
    if not server:
        raise InputError("no Prefect server is known", where="PREFECT_API_URL",
                         hint="Set it, or start one with `infinidub serve`")
    return _register({**prefect_environment(settings), "PREFECT_API_URL": server})


def serve_here(settings: Settings, port: int, ready: Callable[[str], None]) -> None:
    """Run server and worker until Ctrl-C.

    Args:
        settings: The state folder keeps Prefect's database too.
        port: Of the user interface, on the loopback address alone.
        ready: Called with the address once everything is up.

    Raises:
        InputError: The port is taken.
        InfrastructureError: Server or worker ended, or did not come up.
    """
    url, log = f"http://{HOST}:{port}", settings.state / "prefect.log"
    if _answers(f"{url}/api/health"):
        raise InputError(f"something listens there already: {url}", where="--port", hint="Give another --port")
    settings.state.mkdir(parents=True, exist_ok=True)
    here = {**prefect_environment(settings), "PREFECT_API_URL": f"{url}/api", f"{PREFIX}OUT": str(settings.out),
            f"{PREFIX}STATE": str(settings.state), "PWD": str(Path.cwd())}
    with ExitStack() as stack:
        stack.callback((settings.state / ADDRESS_FILE).unlink, missing_ok=True)
        server = stack.enter_context(_child(["server", "start", "--host", HOST, "--port", str(port)], here, log))
        _wait_for(server, f"{url}/api/health", log)
        _register(here)
        worker = stack.enter_context(_child(["worker", "start", "--pool", POOL], here, log))
        (settings.state / ADDRESS_FILE).write_text(f"{url}/api")
        ready(url)
        while server.poll() is None and worker.poll() is None:
            time.sleep(1)
    raise InfrastructureError("Prefect's server or worker ended by itself", where=str(log), hint="The file says why")


def running_server(settings: Settings) -> str:
    """API address of the server that `infinidub serve` runs on this state folder, '' if there is none."""
    try:
        url = (settings.state / ADDRESS_FILE).read_text()
    except OSError:
        return ""
    return url if _answers(f"{url}/health") else ""


def _register(environment: Mapping[str, str]) -> list[str]:
    file = prefect_file()
    _prefect(["work-pool", "create", POOL, "--type", "process", "--overwrite"], environment)
    _prefect(["deploy", "--all", "--prefect-file", str(file)], environment)
    deployments = yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]
    return [f"{one['entrypoint'].rpartition('.')[2].replace('_', '-')}/{one['name']}" for one in deployments]


def _prefect(arguments: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", *arguments], env=environment, text=True,
                          capture_output=True, timeout=PATIENCE_S, check=False)
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())
        raise InfrastructureError(f"prefect {arguments[0]} failed: {words[-400:]}", where="prefect")


@contextmanager
def _child(arguments: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Prefect process in a session of its own, so that Ctrl-C reaches it through us, in the right order."""
    with log.open("ab") as file:
        child = subprocess.Popen([sys.executable, "-m", "prefect", "--no-prompt", *arguments], env=dict(environment),
                                 stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait_for(server: subprocess.Popen[bytes], health: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not _answers(health):
        if server.poll() is not None or time.monotonic() > deadline:
            raise InfrastructureError("Prefect's server did not come up", where=str(log), hint="The file says why")
        time.sleep(0.3)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3) as reply:  # noqa: S310 - our own loopback address
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
