"""Prefect beside the command line: a server and a worker on this machine, and the deployments of prefect.yaml."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from flows.settings import PREFIX, Settings, prefect_environment, prefect_server
from models.errors import InfrastructureError, InputError, SetupError

HOST = "127.0.0.1"
POOL = "local"
KINDS = ("cpu", "gpu")
"""Work pools, as a folder of job templates calls them: `job-template-KIND.json`."""
VARIABLES_FILE = "variables.yaml"
ADDRESS_FILE = "prefect-server"
"""In the state folder, while `infinidub serve` runs: where its server listens."""
PATIENCE_S = 300
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


def deploy_all(settings: Settings, templates: Path | None = None) -> list[str]:
    """Register work pools and all deployments with the server that is set, or that `infinidub serve` runs.

    Args:
        settings: Which pools there are.
        templates: Folder with job-template-cpu.json, job-template-gpu.json and, over their defaults, variables.yaml:
            the pools then start Jobs on Kubernetes. Without it, pools that are not there yet start processes.

    Returns:
        Their names, `flow/deployment`.

    Raises:
        InputError: No server is known, or a template is not as it should be.
        InfrastructureError: Prefect's server failed.
    """
    server = prefect_server() or running_server(settings)
    if not server:
        raise InputError("no Prefect server is known", where="PREFECT_API_URL",
                         hint="Set it, or start one with `infinidub serve`")
    return _register(settings, {**prefect_environment(settings), "PREFECT_API_URL": server}, templates)


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
            f"{PREFIX}STATE": str(settings.state)}
    with ExitStack() as stack:
        stack.callback((settings.state / ADDRESS_FILE).unlink, missing_ok=True)
        server = stack.enter_context(_child(["server", "start", "--host", HOST, "--port", str(port)], here, log))
        _wait_for(server, f"{url}/api/health", log)
        _register(settings.model_copy(update={"cpu_pool": POOL, "gpu_pool": POOL}), here)
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


def job_templates(folder: Path) -> dict[str, dict[str, Any]]:
    """Base job templates of the work pools, with the values of variables.yaml for defaults.

    Args:
        folder: Holds job-template-cpu.json, job-template-gpu.json and perhaps variables.yaml: pool → variable → value.

    Returns:
        'cpu' and 'gpu' → template, as Prefect takes it.

    Raises:
        InputError: A file cannot be read, or a variable is not one of its template's, or of another type.
    """
    given: Any = _read(folder / VARIABLES_FILE) if (folder / VARIABLES_FILE).exists() else {}
    if not isinstance(given, Mapping) or not all(isinstance(values, Mapping) for values in given.values()):
        raise InputError("is no table of pools and their variables", where=str(folder / VARIABLES_FILE))
    for kind in set(given) - set(KINDS):
        raise InputError(f"there is no pool {kind!r}", where=str(folder / VARIABLES_FILE),
                         hint=f"There are: {', '.join(KINDS)}")
    templates = {}
    for kind in KINDS:
        template: Any = _read(folder / f"job-template-{kind}.json")
        try:
            known: dict[str, dict[str, Any]] = template["variables"]["properties"]
        except (KeyError, TypeError):
            raise InputError("is no base job template", where=str(folder / f"job-template-{kind}.json")) from None
        for name, value in given.get(kind, {}).items():
            where = f"{folder / VARIABLES_FILE}: {kind}.{name}"
            if name not in known:
                raise InputError("the template has no such variable", where=where,
                                 hint=f"There are: {', '.join(known)}")
            if not isinstance(value, _TYPES[known[name]["type"]]):
                raise InputError(f"is no {known[name]['type']}", where=where)
            known[name]["default"] = value
        templates[kind] = template
    return templates


_TYPES: Mapping[str, type] = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}


def _read(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON, too
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(file)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"is neither YAML nor JSON: {' '.join(str(error).split())}", where=str(file)) from None


def _register(settings: Settings, environment: Mapping[str, str], templates: Path | None = None) -> list[str]:
    file, pools = prefect_file(), (settings.cpu_pool, settings.gpu_pool)
    if templates is not None:
        _kubernetes_pools(pools, job_templates(templates), environment)
    else:
        process_pools(pools, environment)
    # A run that dispatches nothing takes back by itself what died, and a process every minute is a burden to a laptop.
    reaper = str(settings.dispatch != "here").lower()
    _prefect(["deploy", "--all", "--prefect-file", str(file)],
             {**environment, f"{PREFIX}CPU_POOL": pools[0], f"{PREFIX}GPU_POOL": pools[1], "REAPER_ACTIVE": reaper,
              "PWD": str(Path.cwd())})
    deployments = yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]
    return [f"{one['entrypoint'].rpartition('.')[2].replace('_', '-')}/{one['name']}" for one in deployments]


def process_pools(names: Iterable[str], environment: Mapping[str, str]) -> None:
    """Make work pools that start processes; those that are there stay what they are.

    Args:
        names: Of the pools.
        environment: Names Prefect's server.

    Raises:
        InfrastructureError: It failed.
    """
    for name in dict.fromkeys(names):
        _prefect(["work-pool", "create", name, "--type", "process"], environment, but="already exists")


def _kubernetes_pools(pools: tuple[str, str], templates: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    if pools[0] == pools[1]:
        raise InputError(f"both pools are called {pools[0]!r}", where="cpu_pool, gpu_pool",
                         hint=f"Jobs with a GPU need a pool of their own: set {PREFIX}GPU_POOL")
    with tempfile.TemporaryDirectory() as folder:
        for pool, kind in zip(pools, KINDS, strict=True):
            template = Path(folder) / f"{kind}.json"
            template.write_text(json.dumps(templates[kind]), encoding="utf-8")
            _prefect(["work-pool", "create", pool, "--type", "kubernetes", "--base-job-template", str(template),
                      "--overwrite"], environment)


def _prefect(arguments: list[str], environment: Mapping[str, str], but: str = "") -> None:
    """Run one of Prefect's commands; it may fail, if it then says `but`."""
    try:
        done = subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", *arguments], env=environment, text=True,
                              capture_output=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        raise InfrastructureError(f"prefect {arguments[0]} did not end within {PATIENCE_S} s", where="prefect",
                                  hint="Is Prefect's server up, and its machine not overloaded?") from None
    words = " ".join((done.stderr or done.stdout).split())
    if done.returncode and not (but and but in f"{done.stdout} {done.stderr}"):
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
