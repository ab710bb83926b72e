"""The verbs around the work: `models`, `doctor`, `config`, `serve`, `deploy`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from flows.options import Config, Json, Out, Set, State, answer, flags
from flows.settings import Settings, load_settings
from flows.show import MARKS, pulling, stderr
from models.errors import InfinidubError

if TYPE_CHECKING:
    from models.weights import WeightStore

Names = Annotated[list[str] | None, typer.Argument(help="Names in models.lock, of entries or groups; all that the"
                                                        " chosen engines need, unless given.", show_default=False)]


def models_list(config: Config = None, assignments: Set = None, as_json: Json = False) -> int:
    """Show the weights there are, and whether they are here."""
    from models.weights import WeightStore

    settings = load_settings(config, flags(assignments=assignments))
    store = WeightStore(settings.weights, mirror=settings.weights_mirror, stamps=settings.stamps)
    rows = [_row(store, name) for name in (*store.names(), *store.groups)]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("", "name", "MB", "licence", ""):
        table.add_column(title, justify="right" if title == "MB" else "left")
    for row in rows:
        size = f"{row['size'] / 1e6:.0f}" + (" + ?" if row["unlocked"] else "")
        note = " + ".join(row["entries"]) or ("hashes are locked at first use" if row["unlocked"] else "")
        table.add_row(MARKS["done" if row["present"] else "waiting"], row["name"], size, row["licence"], note)
    answer(as_json, {"weights": rows}, table)
    return 0


def _row(store: WeightStore, name: str) -> dict[str, Any]:
    """An entry, or a group with the names of its own; `unlocked`: hashes and sizes are known after the first pull."""
    inside, group = store.expand([name]), name in store.groups
    entries = [store.entry(one) for one in inside]
    return {"name": name, "present": all(map(store.present, inside)), "size": sum(entry.size for entry in entries),
            "unlocked": any(entry.unlocked for entry in entries), "entries": list(inside) if group else [],
            "licence": ", ".join(dict.fromkeys(entry.licence for entry in entries)),
            "folder": "" if group else str(store.root / name)}


def models_pull(names: Names = None, config: Config = None, assignments: Set = None, as_json: Json = False) -> int:
    """Download weights, check their hashes, keep them."""
    from models.weights import WeightStore

    settings = load_settings(config, flags(assignments=assignments))
    store = WeightStore(settings.weights, mirror=settings.weights_mirror, stamps=settings.stamps)
    pulled = []
    for name in store.expand(names or needed_weights(settings)):
        if not store.present(name):
            size = store.entry(name).size
            told = ", and what the hub tells" if store.entry(name).unlocked else ""
            stderr.print(f"pulling {name} ({size / 1e6:.0f} MB{told})", highlight=False)
        with pulling(name) as report:
            pulled.append({"name": name, "folder": str(store.pull(name, report))})
    answer(as_json, {"weights": pulled}, "\n".join(f"{MARKS['done']} {one['name']}  {one['folder']}" for one in pulled))
    return 0


def models_verify(names: Names = None, config: Config = None, assignments: Set = None, as_json: Json = False) -> int:
    """Hash the weights that are here, and compare with models.lock."""
    from models.weights import WeightStore

    settings = load_settings(config, flags(assignments=assignments))
    store = WeightStore(settings.weights, mirror=settings.weights_mirror, stamps=settings.stamps)
    results: list[dict[str, Any]] = []
    code = 0
    for name in store.expand(names or [name for name in store.names() if store.present(name)]):
        try:
            store.verify(name)
            results.append({"name": name, "ok": True, "error": ""})
        except InfinidubError as error:
            results.append({"name": name, "ok": False, "error": str(error)})
            code = error.exit_code
    nothing = "" if results else f"nothing to verify: no weights are in {escape(str(store.root))}"
    answer(as_json, {"weights": results}, nothing, *(
        f"{MARKS['done' if one['ok'] else 'failed']} {one['name']}  {escape(one['error'])}" for one in results))
    return code


def needed_weights(settings: Settings) -> list[str]:
    """Names of the weights that the chosen engines run on."""
    from models.engines import adapter

    chosen = {port: settings.engine(port) for port in settings.engines}
    names = [weights for port, name in chosen.items()
             for weights in adapter(port, name).required_weights(settings.options.get(name, {}))]
    return list(dict.fromkeys(names))


def doctor(out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
           as_json: Json = False) -> int:
    """Check this machine; every ✗ comes with the command that mends it."""
    from flows.doctor import examine

    checks = examine(load_settings(config, flags(out, state, None, assignments)))
    lines = [f"{MARKS['done' if c.ok else 'failed' if c.needed else 'waiting']} {c.name:<28} {escape(c.found)}"
             + (f"\n    [bold]{escape(c.mend)}[/]" if c.mend and not c.ok else "") for c in checks]
    answer(as_json, {"checks": [asdict(check) for check in checks]}, *lines)
    return 2 if any(check.needed and not check.ok for check in checks) else 0


def config(out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
           as_json: Json = False) -> int:
    """Show the settings that hold; secrets stay hidden."""
    shown = load_settings(config, flags(out, state, None, assignments)).shown()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in shown.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                table.add_row(f"{name}.{key}", str(inner))
        else:
            table.add_row(name, str(value))
    answer(as_json, shown, table)
    return 0


def serve(port: Annotated[int, typer.Option(help="Port of the user interface.")] = 4200, out: Out = None,
          state: State = None, config: Config = None, as_json: Json = False) -> int:
    """Bring up Prefect here: server, user interface, worker."""
    from flows.deploy import serve_here

    with suppress(KeyboardInterrupt):  # the only way to end it
        serve_here(load_settings(config, flags(out, state)), port,
                   lambda url: answer(as_json, {"url": url}, f"Prefect is at {url}; Ctrl-C ends it"))
    return 0


Templates = Annotated[Path | None, typer.Option(help="Folder of base job templates (infra/kubernetes/base): the work"
                                                     " pools then start Jobs on Kubernetes.", show_default=False)]


def deploy(templates: Templates = None, config: Config = None, as_json: Json = False) -> int:
    """Register work pools and the deployments of prefect.yaml."""
    from flows.deploy import deploy_all

    names = deploy_all(load_settings(config), templates)
    answer(as_json, {"deployments": names}, *(f"{MARKS['done']} {name}" for name in names))
    return 0
