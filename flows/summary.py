"""What came of a run, language by language: dubbed, skipped or failed and why, and what it cost.

Seconds are those of the tables, so they sum up: every second of the run is in one line, what languages share in one of
its own. What was reused cost nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from flows.settings import Settings
from models.pool import Spent
from tasks.shards import spent

if TYPE_CHECKING:
    from flows.runs import Session

Outcome = Literal["dubbed", "skipped", "failed", "awaiting", "shared"]
LISTED = 500
"""Lines of a report for people; failures come first, and all are in the JSON."""
HOUR = 3600


@dataclass(frozen=True)
class Line:
    """One language of one episode; language '': what its languages share."""

    episode: str
    language: str
    outcome: Outcome
    why: str
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    """Of all attempts."""
    lost_s: float = 0.0
    """Of these, what attempts took that did not finish their shard."""
    startup_s: float = 0.0
    """Of these, until generators were ready."""
    cost: float = 0.0
    """Dollars, by the settings' prices."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as `--json` prints it."""
        return asdict(self)


@dataclass(frozen=True)
class Summary:
    """All lines of a run, failures first, and their sums."""

    lines: tuple[Line, ...]

    def total(self, what: Literal["cpu_s", "gpu_s", "lost_s", "startup_s", "cost"]) -> float:
        """Sum of a column."""
        return float(sum(getattr(line, what) for line in self.lines))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as `--json` prints it."""
        return {**{what: round(self.total(what), 3) for what in ("cpu_s", "gpu_s", "lost_s", "startup_s", "cost")},
                "languages": [line.to_json() for line in self.lines]}

    @property
    def markdown(self) -> str:
        """For people: the sums, failures and their reasons, then what was dubbed; of what was skipped, the number."""
        counts = Counter(line.outcome for line in self.lines)
        gpu, startup = self.total("gpu_s"), self.total("startup_s")
        told = [line for line in self.lines if line.outcome != "skipped"]
        rows = [f"| {_cell(one.episode)} | {_cell(one.language)} | {one.outcome} | {_cell(one.why)} | {one.cpu_s:.1f} |"
                f" {one.gpu_s:.1f} | {one.lost_s:.1f} | {one.cost:.2f} |" for one in told[:LISTED]]
        waiting = f", {counts['awaiting']} awaiting review" if counts["awaiting"] else ""
        more = [f"{len(told) - LISTED} more lines are in the run's JSON.", ""] if len(told) > LISTED else []
        starts = f" (start-up {startup / gpu:.1%}, lost {self.total('lost_s') / gpu:.1%})" if gpu else ""
        return "\n".join([
            f"**{counts['dubbed']} dubbed, {counts['skipped']} skipped, {counts['failed']} failed{waiting}** · "
            f"{self.total('cpu_s'):.0f} CPU s · {gpu:.0f} GPU s{starts} · $ {self.total('cost'):.2f}", "",
            "| episode | language | outcome | why | CPU s | GPU s | of them lost | $ |",
            "|---|---|---|---|---:|---:|---:|---:|", *rows, "", *more])


def summarize(run: Session) -> Summary:
    """What came of a run's languages, and what its rows in the tables say that they cost."""
    asked = [(one.job.id, language) for one in run.selected for language in one.languages]
    reasons = {(one.episode, one.language): one.message for one in run.failures}
    todo = {(one.job.id, language) for one in run.todo or () for language in one.languages}
    begun = {episode for episode, _ in run.localized}  # what then failed of their episode is no language's fault
    outcomes: dict[tuple[str, str], tuple[Outcome, str]] = {}
    for key in dict.fromkeys([*asked, *run.localized, *(key for key in reasons if key[1] or key[0] in begun)]):
        done, failure = run.localized.get(key), reasons.get(key) or reasons.get((key[0], ""))
        if key in run.awaiting:
            outcomes[key] = "awaiting", run.awaiting[key].what
        elif done is None:
            ended = f"the run ended before: {run.broken}" if run.broken else "the run ended before it was its turn"
            outcomes[key] = "failed", failure or ended
        elif key in todo or run.todo is None:
            missed = "; ".join(check.words for check in done.inspection.checks if check.failed)
            outcomes[key] = "dubbed", missed or f"{done.deliverable.generated_s:.1f} s of picture generated"
        else:
            outcomes[key] = "skipped", "nothing changed"
    return Summary(lines(outcomes, spent(run.space.ledger, [run.run_id]), run.space.settings))


def lines(outcomes: Mapping[tuple[str, str], tuple[Outcome, str]], took: Iterable[Spent], settings: Settings,
          ) -> tuple[Line, ...]:
    """Outcomes by (episode, language) with what they took; what belongs to no language stands by itself."""
    by_key: dict[tuple[str, str], list[Spent]] = {}
    for one in took:
        by_key.setdefault((one.episode, one.language), []).append(one)
    made = [_line(key, *outcome, by_key.pop(key, []), settings) for key, outcome in outcomes.items()]
    made += [_line(key, "shared", "", mine, settings) for key, mine in by_key.items()]
    order = {"failed": 0, "awaiting": 1, "dubbed": 2, "shared": 3, "skipped": 4}
    return tuple(sorted(made, key=lambda line: (order[line.outcome], line.episode, line.language)))


def _line(key: tuple[str, str], outcome: Outcome, why: str, took: Sequence[Spent], settings: Settings) -> Line:
    cost = sum(one.cpu_seconds * settings.price_cpu + one.gpu_seconds * settings.prices.get(one.pool, 0.0)
               for one in took) / HOUR
    return Line(*key, outcome, " ".join(why.split()), cpu_s=sum(one.cpu_seconds for one in took),
                gpu_s=sum(one.gpu_seconds for one in took), lost_s=sum(one.lost_seconds for one in took),
                startup_s=sum(one.startup_seconds for one in took), cost=cost)


def _cell(text: str) -> str:
    """Text of a table's cell: it may come from anywhere."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
