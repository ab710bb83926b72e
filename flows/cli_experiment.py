"""The verb `experiment conditioning`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.options import Json, answer
from flows.show import stderr
from models.errors import InputError, SetupError

Base = Annotated[Path, typer.Option("--base", metavar="DIR", help="Weights that are forked: a folder of `infinidub "
                                                                  "train`.")]
Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="Clips of `world render` to train on.")]
Test = Annotated[Path | None, typer.Option("--test", metavar="DIR", show_default=False,
                                           help="Clips of `world render --split test` to dub, about 11 s long; those "
                                                "of --data unless given.")]
Work = Annotated[Path, typer.Option("--work", metavar="DIR", help="Everything that is kept lies there.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the report: Markdown, JSON, PNG.")]
Minutes = Annotated[float, typer.Option(help="How long this piece takes, 10 at most.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the experiment that is in --work.")]
Steps = Annotated[int, typer.Option(min=1, help="Of training, for each of the forks.")]
Rate = Annotated[float, typer.Option(min=1e-8, max=1, help="Learning rate at its highest.")]
Batch = Annotated[int, typer.Option(min=1, help="Chunks a step.")]
Pairs = Annotated[int, typer.Option(min=1, help="Held-out pairs of a source and another's voice.")]
Seeds = Annotated[int, typer.Option(min=1, help="Dubs of each pair.")]
Few = Annotated[int, typer.Option("--ablation-seeds", min=1, help="The same where one thing of M3 is changed.")]
Chunks = Annotated[int, typer.Option(min=2, help="Of a dub, at least.")]
Sampler = Annotated[int, typer.Option("--sampler-steps", min=1, help="Of the sampler, for each chunk.")]
Guidance = Annotated[float, typer.Option(min=0, help="How far mouths go beyond what weights say by themselves; other "
                                                     "than 1 it takes twice the time.")]
Color = Annotated[float, typer.Option(min=0, max=1, help="Strength of the colour correction, which hides drift.")]
Sdedit = Annotated[float, typer.Option(min=0.01, max=0.99, help="Share of noise where chunks begin with the source.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that train and dub, of one thread each.")]
Networks = Annotated[Path | None, typer.Option(metavar="DIR", show_default=False,
                                               help="Published networks; dlib's, to compare faces.")]


def conditioning(base: Base, data: Data, test: Test = None, work: Work = Path("experiment"),
                 out: Out = Path("experiment/report"), minutes: Minutes = 10.0, resume: Resume = False,
                 steps: Steps = 500, rate: Rate = 2e-4, batch: Batch = 16, pairs: Pairs = 60, seeds: Seeds = 3,
                 few: Few = 1, chunks: Chunks = 8, sampler: Sampler = 8, guidance: Guidance = 1.0,
                 color: Color = 0.0, sdedit: Sdedit = 0.8, workers: Workers = 1, networks: Networks = None,
                 as_json: Json = False) -> int:
    """Repeat the paper's experiments on conditioning: I2V, FL2V and M0 to M3 from one base, pair by pair."""
    try:
        from infinitetalk.errors import BadInputError, InfiniteTalkError
        from infinitetalk.experiment import report
        from infinitetalk.experiment.bench import How
        from infinitetalk.experiment.conditioning import Experiment, Training, begun
    except ImportError as error:
        raise _absent(error) from error
    if begun(work) != resume:
        raise InputError("holds no experiment to go on with" if resume else "holds an experiment already",
                         where=str(work), hint="Leave out --resume to begin one" if resume else
                         "Give --resume to go on, or another --work")
    try:
        _check_plots()
        training = Training(steps, rate, batch)
        how = How(pairs, seeds, few, chunks, sampler, guidance, color, sdedit)
        experiment = Experiment(work, base, data, test, training, how, networks)
        standing = experiment.go_on(minutes, workers, lambda line: stderr.print(line, highlight=False))
        table, file = experiment.table(), None
        if table.figures:
            file = report.write(out, table, experiment.arms, experiment.strips(), standing, experiment.config,
                                training, how)
    except ImportError as error:
        raise _absent(error) from error
    except BadInputError as error:
        raise InputError(error.what, where=error.where, hint=error.hint) from error
    except InfiniteTalkError as error:
        raise SetupError(error.what, where=error.where, hint=error.hint) from error
    told = {"trained": standing.trained, "forks": standing.forks, "dubbed": standing.dubbed, "dubs": standing.dubs,
            "finished": standing.finished, "report": str(file) if file else None}
    answer(as_json, told, f"{standing.trained} of {standing.forks} forks trained, {standing.dubbed} of "
                          f"{standing.dubs} dubs measured" + ("" if standing.finished else
                                                              "; the same command with --resume goes on"),
           f"report: {file}" if file else "")
    return 0


def _check_plots() -> None:
    import matplotlib.figure  # noqa: F401  absence is said before hours of work


def _absent(error: ImportError) -> SetupError:
    return SetupError(f"{error.name} is not installed", where="experiment",
                      hint="pip install 'infinidub[infinitetalk,experiment]'")
