"""What people see on the terminal: progress while it runs (on stderr), and tables afterwards (on stdout)."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flows.hints import command_line, near
from models.errors import InfinidubError
from models.pool import ShardLine
from models.records import Deliverable

if TYPE_CHECKING:  # these pull in database and media libraries, which `infinidub --help` can do without
    from flows.status import Row
    from tasks.consent import Consent
    from tasks.trace import Trace, TracedStep

MARKS = {"done": "[green]✓[/]", "reused": "[green]✓[/]", "running": "[yellow]▸[/]", "failed": "[red]✗[/]",
         "waiting": "[dim]·[/]"}

QUIET_S = 5.0
"""Without a terminal, a long step says where it is this often."""

SHARD_MARKS = {"running": "[yellow]▸ running[/]", "failed": "[red]✗ failed[/]"}
SHOWN_SHARDS = 30
SHOWN_WEIGHTS = 4

stdout = Console(width=None if sys.stdout.isatty() else 200)
stderr = Console(stderr=True)


class Terminal:
    """A listener that shows a run: one line a finished step, and a bar for the one that runs."""

    def __init__(self, console: Console = stderr) -> None:
        self.console = console
        self._bars = Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24),
                              TextColumn("{task.fields[text]}", style="dim"), TimeElapsedColumn(), console=console,
                              transient=True, disable=not console.is_terminal)
        self._running: dict[tuple[str, str, str], tuple[TaskID, float]] = {}
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
                 ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """One line."""
        self._said = time.monotonic()
        self._bars.console.print(text, highlight=False, soft_wrap=True)

    def step(self, episode: str, language: str, step: str, state: str) -> None:
        """A line when a step ends; a moving bar (or, without a terminal, a line) when it starts."""
        key, name = (episode, language, step), f"{escape(_place(episode, language))}  {step}"
        if state == "running":
            self._running[key] = self._bars.add_task(name, total=1.0, text=""), time.monotonic()
            if not self.console.is_terminal:
                self.say(f"  {name} …")
            return
        task, started = self._running.pop(key)
        self._bars.remove_task(task)
        took = "reused" if state == "reused" else f"{time.monotonic() - started:.1f} s"
        self.say(f"{MARKS[state]} {name}  [dim]{took}[/]")

    def progress(self, episode: str, language: str, text: str, fraction: float) -> None:
        """Moves the bar of the step that runs; without a terminal, says a line every now and then."""
        for (where, tag, _step), (task, _started) in self._running.items():
            if (where, tag) == (episode, language):
                self._bars.update(task, completed=min(max(fraction, 0.0), 1.0), text=escape(text[:40]))
        if not self.console.is_terminal and time.monotonic() - self._said > QUIET_S:
            self.say(f"    {escape(_place(episode, language))}  {escape(text)}, {fraction:.0%}")

    def link(self, name: str, url: str) -> None:
        """Where a run is seen in the user interface."""
        self.say(f"  {escape(name)}  [link={url}]{url}[/link]")


@contextmanager
def pulling(name: str) -> Iterator[Any]:
    """A progress bar for one download; yields the function to report to."""
    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                  TextColumn("{task.fields[text]}", style="dim"), console=stderr, transient=True) as bars:
        task = bars.add_task(name, total=1.0, text="")
        yield lambda text, done: bars.update(task, completed=done, text=escape(text))


def error_line(error: InfinidubError | str) -> None:
    """`error: where: what. hint`, on one line whatever the terminal's width."""
    stderr.print(Text.assemble(("error: ", "bold red"), " ".join(str(error).split())), soft_wrap=True)


def warning_line(words: str) -> None:
    """`warning: what`, on one line."""
    stderr.print(Text.assemble(("warning: ", "bold yellow"), words), soft_wrap=True)


def _place(episode: str, language: str) -> str:
    return f"{episode} · {language}" if language else episode


# -- tables -----------------------------------------------------------------------------------------------------------


def deliverables_table(deliverables: Sequence[Deliverable]) -> Table:
    """The closing table: figures of every delivered language."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("episode", "lang", "length", "gene-\nrated", "pass-\nthrough", "on\ntime", "stretch", "LUFS", "dBTP",
                 "back-\nWER", ""):
        table.add_column(name, justify="left" if name in {"episode", "lang"} else "right", no_wrap=True)
    for one in deliverables:
        wer = "–" if one.back_wer is None else f"{one.back_wer:.1%}"
        table.add_row(escape(one.episode), one.language, clock(one.duration_s), f"{one.generated_s:.1f} s",
                      f"{one.passthrough_s:.1f} s", f"{one.onset_within_120ms:.0%}", f"{one.max_stretch:.2f}",
                      f"{one.loudness_lufs:.1f}", f"{one.true_peak_dbtp:.1f}", wer,
                      MARKS["done"] if one.passed else "[red]✗ see report[/]")
    return table


def files_list(deliverables: Sequence[Deliverable], multi: Sequence[str]) -> RenderableType:
    """Where the files are."""
    lines = [f"{escape(near(one.video))}  [dim]{', '.join(_beside(one))}[/]" for one in deliverables]
    return "\n".join(lines + [f"{escape(near(path))}  [dim]original picture, every dub[/]" for path in multi])


def _beside(one: Deliverable) -> Iterator[str]:
    folder = Path(one.video).parent
    return (escape(os.path.relpath(path, folder)) for path in (*one.subtitles, *one.others, one.report))


def status_table(rows: Sequence[Row]) -> RenderableType:
    """Episode × language × step, then the failures."""
    table = _steps(rows, wide=True)
    unbounded = stdout.options.update(max_width=sys.maxsize)
    if not (wide := stdout.measure(table, options=unbounded).maximum <= stdout.width):
        table = _steps(rows, wide=False)
    trouble = [f"{MARKS['failed']} {escape(_place(row.episode, row.language))}  {row.trouble.step} {row.trouble.item}"
               f"  [red]{row.trouble.error_class}[/]: {escape(row.trouble.error)}" for row in rows if row.trouble]
    trouble += [f"{MARKS['failed']} {escape(_place(row.episode, row.language))}  {escape(words)}"
                for row in rows for words in row.below_bar if not row.trouble]
    trouble += [f"⏸ {escape(_place(row.episode, row.language))}  {escape(row.awaiting)}"
                for row in rows if row.awaiting]
    return Group(table, *(trouble if wide else ()))


def _steps(rows: Sequence[Row], *, wide: bool) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    steps = dict.fromkeys(step for row in rows for step in row.steps)
    for name in ("episode", "lang", *(steps if wide else ("steps", "state"))):
        table.add_column(name, justify="left" if name in {"episode", "lang", "state"} else "center",
                         overflow="fold" if name == "episode" else "ellipsis")
    for row in rows:
        marks = [MARKS[row.steps[step]] for step in steps]
        table.add_row(escape(row.episode), row.language, *(marks if wide else ("".join(marks), escape(row.state))))
    return table


def shards_table(shards: Sequence[ShardLine]) -> RenderableType:
    """Live and failed shards, and how many there are of each state."""
    if not shards:
        return ""
    counts = Counter(shard.state for shard in shards)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("shard", "episode", "lang", "state", "try", "chunk", "frames", "GPU", "heard of", "by"):
        table.add_column(name, justify="right" if name in {"try", "chunk", "frames", "GPU", "heard of"} else "left")
    shown = [shard for shard in shards if shard.state not in {"done", "cancelled"}]
    for one in shown[:SHOWN_SHARDS]:
        heard = "–" if one.beat_age_s is None else f"{clock(one.beat_age_s)} ago"
        chunks = f"{one.chunks_done} of {one.chunks_total}" if one.chunks_total else "–"
        trouble = f"[red]{one.error_class}[/]: {escape(one.error)}" if one.error_class else ""
        table.add_row(one.shard.removeprefix("shard-")[:8], escape(one.episode), one.language,
                      SHARD_MARKS.get(one.state, one.state), str(one.attempt), chunks, str(one.frames),
                      clock(one.gpu_seconds), heard, escape(one.owner) or trouble)
    more = len(shown) - SHOWN_SHARDS
    said = ", ".join(f"{number} {state}" for state, number in counts.items())
    rest = f"; {more} more are not shown" if more > 0 else ""
    return Group(*([table] if shown else []), f"[dim]shards: {said}{rest}[/]")


def forecast_table(plans: Sequence[Mapping[str, Any]]) -> Table:
    """What a run would do."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    priced = any(one["gpu_cost"] is not None for one in plans)
    for name in ("episode", "lang", "length", "shots", "to generate", "generated", "passed on", "GPU",
                 *(["$"] if priced else []), "steps to run"):
        table.add_column(name, justify="left" if name in {"episode", "lang", "steps to run"} else "right")
    for one in plans:
        figures = ["?" if one[key] is None else f"{one[key]:g}{unit}" for key, unit in (
            ("shots", ""), ("shots_to_run", ""), ("generated_s", " s"), ("passthrough_s", " s"))]
        length = "?" if one["duration_s"] is None else clock(one["duration_s"])
        gpu = "?" if one["gpu_s"] is None else clock(one["gpu_s"]) + (" (guess)" if one["gpu_basis"] == "guess" else "")
        cost = ["?" if one["gpu_cost"] is None else f"{one['gpu_cost']:.2f}"] if priced else []
        table.add_row(escape(one["episode"]), one["language"], length, *figures, gpu, *cost,
                      " ".join(one["steps_to_run"]) or "[green]nothing[/]")
    return table


def trace_tree(trace: Trace) -> Tree:
    """A file and everything behind it."""
    tree = Tree(f"[bold]{escape(trace.file)}[/]  {_place(trace.episode, trace.language)}  [dim]{trace.sha256}[/]")
    steps = {step.recipe: step for step in trace.steps}
    order = {recipe: place for place, recipe in enumerate(steps)}
    seen: set[str] = set()

    def grow(branch: Tree, step: TracedStep) -> None:
        if step.recipe in seen:
            branch.add(f"{step.step}  [dim]{step.recipe[:12]}, as above[/]")
            return
        seen.add(step.recipe)
        here = branch.add(_step_line(step))
        for line in _weights(step, seen):
            here.add(f"[dim]{line}[/]")
        for consent in step.consents:
            here.add(_consent(consent))
        for item in step.items:
            seed = "" if item.seed is None else f"  seed {item.seed}"
            here.add(f"[dim]{item.item}  {item.step} {item.outcome}  {item.recipe[:12]}{seed}[/]")
        for recipe in sorted({one.recipe for one in step.inputs if one.recipe}, key=order.__getitem__):
            grow(here, steps[recipe])
        for given in step.inputs:
            if given.path:
                here.add(f"[cyan]{escape(given.path)}[/]  [dim]{given.sha256}[/]")

    for line in _claims(trace):
        tree.add(line)
    if trace.steps:
        grow(tree, trace.steps[0])
    return tree


def _claims(trace: Trace) -> Iterator[str]:
    """What the file itself says: content credentials and watermark."""
    found = trace.credentials
    if found is None:
        yield "[dim]no content credentials[/]"
    else:
        who = escape(f"signed by {found.signer or 'nobody'}" + (f", issued by {found.issuer}" if found.issuer else ""))
        trust = "trusted" if found.trusted else "not trusted"
        yield (f"[red]content credentials are not valid: the file was altered[/]  {who}" if trace.tampered
               else f"[green]content credentials are valid[/]  {who} ({trust}) {escape(found.time)}".rstrip())
        yield from (f"[red]{escape(problem)}[/]" for problem in found.problems)
        for action in found.actions:
            said = "  ".join(filter(None, [action.languages, action.agent, action.source_type]))
            yield f"{escape(action.action)}  [dim]{escape(said)}[/]"
        for one in found.ingredients:
            own = ", with credentials of its own" if one.signed else ""
            yield f"{escape(one.relationship)} {escape(one.title)}  [dim]{escape(one.id)}{own}[/]"
    for mark in trace.marks:
        known = mark.recipe[:12] if mark.recipe else "not known here"
        yield (f"watermark [bold]{mark.payload}[/] in sound track {mark.track + 1}  [dim]by {mark.watermarker}, false "
               f"alarm ≤ {mark.false_alarm:.0e}, recipe {known}[/]")


def _weights(step: TracedStep, seen: set[str]) -> Iterator[str]:
    """The weights an engine ran on, where it is named for the first time."""
    weights = sorted(step.execution.weights.items()) if step.execution else []
    if step.execution is None or step.execution.engine in seen:
        return
    seen.add(step.execution.engine)
    for name, digest in weights[:SHOWN_WEIGHTS]:
        yield f"weights {escape(name)} {digest[:12]}"
    if len(weights) > SHOWN_WEIGHTS:
        yield f"weights: {len(weights) - SHOWN_WEIGHTS} more files; --json has all hashes"


def _consent(one: Consent) -> str:
    """What somebody agreed to, and since when it does not hold any more."""
    proof = " ".join(filter(None, [one.evidence, one.evidence_sha256[:12]]))
    ended = f", revoked {one.revoked:%Y-%m-%d}" if one.revoked else ""
    return (f"[green]consent {one.id}[/] {escape(one.person)}: {one.kind}, {escape(one.scope)}  "
            f"[dim]{escape(proof)}, recorded {one.recorded:%Y-%m-%d} by {escape(one.recorded_by)}{ended}[/]")


def _step_line(step: TracedStep) -> str:
    done, line = step.execution, f"[bold]{step.step}[/] v{step.version}  [dim]recipe[/] {step.recipe[:12]}"
    if done is None or step.run is None:
        return line
    seed = "" if done.seed is None else f"  seed {done.seed}"
    engine = f"  [magenta]{escape(done.engine)}[/]" if done.engine else ""
    item = f"  {done.item}" if done.item else ""
    return (f"{line}{item}{engine}{seed}  [dim]{done.started:%Y-%m-%d %H:%M:%S}, {done.cpu_seconds or 0:.1f} CPU s,"
            f" attempt {done.attempt}, run {step.run.id[:8]}, host {escape(str(step.run.environment.get('host')))}[/]")


def clock(length: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    whole = round(length)
    hours, minutes = f"{whole // 3600}:" if whole >= 3600 else "", whole // 60 % 60
    return f"{hours}{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def next_commands(one: Deliverable, catalog: str, flags: Mapping[str, Any], config: str) -> RenderableType:
    """What one may want to do next."""
    commands = [f"redo {one.episode} --lang {one.language} --line L0001 --text \"…\"", f"trace {near(one.video)}",
                "serve", *([f"status {near(catalog)}"] if catalog else [])]
    return "[dim]Next:[/]\n" + "\n".join(f"  {escape(command_line(command, flags, config))}" for command in commands)
