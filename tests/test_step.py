"""One truth for reuse: same recipe, same result, nothing runs twice; everything leaves a row."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from models import tables as t
from models.errors import EngineError, InfrastructureError, StorageFullError
from models.recipe import canonical, recipe_of
from models.records import Artifact, EngineRef, Record, Request
from tasks.step import BATCH, NotDoneError, Work, lookup, perform, perform_many, step


class Ask(Request):
    text: str
    engine: EngineRef = EngineRef(name="shout", weights={"w/model.bin": "c" * 64})


class Answer(Record):
    text: str
    file: Artifact


calls: list[str] = []
RECIPE = "c126411e98f5bd90a351494424addbc35801729fcc8cc05ab8e82f2801e8b3f6"


@step("shout", version=1, result=Answer)
def shout(work: Work, request: Ask) -> Answer:
    calls.append(request.text)
    if request.text == "crash":
        raise EngineError("no voice")
    file = work.store.put_bytes(request.text.upper().encode(), "text/plain")
    return Answer(text=request.text.upper(), file=file)


shout_all = step("shout.line", version=1, result=Answer, unit="line",
                 batch=lambda work, requests: [shout.function(work, r) for r in requests])(shout.function)


@pytest.fixture(autouse=True)
def _fresh():
    calls.clear()


def executions(work):
    with work.ledger.session() as session:
        return session.scalars(sa.select(t.Execution).order_by(t.Execution.id)).all()


def test_a_result_is_computed_once_and_then_reused(work):
    first = perform(work, shout, Ask(text="hi"))
    again = perform(work, shout, Ask(text="hi"))
    assert first == again
    assert calls == ["hi"]
    assert work.counts == {"steps_run": 1, "steps_reused": 1}
    assert [e.outcome for e in executions(work)] == ["computed", "reused"]


def test_lookup_computes_nothing(work):
    with pytest.raises(NotDoneError):
        lookup(work, shout, Ask(text="hi"))
    made = perform(work, shout, Ask(text="hi"))
    assert lookup(work, shout, Ask(text="hi")) == made
    assert calls == ["hi"]


@pytest.mark.parametrize("other", [Ask(text="ho"), Ask(text="hi", take=1), Ask(text="hi", engine=EngineRef(name="x")),
                                   Ask(text="hi", engine=EngineRef(name="shout", weights={"w/model.bin": "d" * 64}))])
def test_whatever_enters_the_recipe_makes_another_result(other):
    assert shout.recipe(other) != shout.recipe(Ask(text="hi"))


def test_a_result_whose_file_was_lost_is_made_again(work):
    made = perform(work, shout, Ask(text="hi"))
    work.store.path(made.file).unlink()
    assert perform(work, shout, Ask(text="hi")) == made
    assert calls == ["hi", "hi"]


def test_looking_forgets_nothing(work):
    made = perform(work, shout, Ask(text="hi"))
    file = work.store.path(made.file)
    aside = file.rename(file.with_suffix(".aside"))
    with pytest.raises(NotDoneError):
        lookup(work, shout, Ask(text="hi"))
    aside.rename(file)
    assert lookup(work, shout, Ask(text="hi")) == made


def test_a_store_that_cannot_be_read_is_not_taken_for_an_empty_one(work):
    made = perform(work, shout, Ask(text="hi"))
    folder = work.store.path(made.file).parent
    aside = folder.rename(folder.with_suffix(".aside"))
    folder.symlink_to(folder)  # neither there nor absent
    with pytest.raises(InfrastructureError, match="cannot be read"):
        perform(work, shout, Ask(text="hi"))
    folder.unlink()
    aside.rename(folder)
    assert perform(work, shout, Ask(text="hi")) == made
    assert calls == ["hi"]


def test_an_altered_record_is_noticed(work):
    perform(work, shout, Ask(text="hi"))
    record = work.store.path(work.ledger.find(shout.recipe(Ask(text="hi"))))
    record.chmod(0o644)
    record.write_bytes(record.read_bytes().replace(b"HI", b"HO"))
    with pytest.raises(InfrastructureError, match="altered"):
        perform(work, shout, Ask(text="hi"))


def test_failures_are_rows_and_the_next_try_counts_up(work):
    for _ in range(2):
        with pytest.raises(EngineError):
            perform(work, shout, Ask(text="crash"))
    rows = executions(work)
    assert [(e.outcome, e.error_class, e.attempt) for e in rows] == [("failed", "EngineError", 1),
                                                                     ("failed", "EngineError", 2)]
    assert rows[0].weights == {"w/model.bin": "c" * 64}
    assert rows[0].engine == "shout"


def test_a_full_disk_under_a_step_is_said_to_be_one(work):
    @step("full", version=1, result=Answer)
    def full(work: Work, request: Ask) -> Answer:
        with Path("/dev/full").open("w") as file:
            file.write(request.text)

    with pytest.raises(StorageFullError, match="no space left"):
        perform(work, full, Ask(text="hi"))
    assert [e.error_class for e in executions(work)] == ["StorageFullError"]


def test_a_batch_computes_only_what_is_missing_and_keeps_the_keys(work):
    perform(work, shout_all, Ask(text="b"), "L0002")
    answers = perform_many(work, shout_all, {f"L000{n}": Ask(text=x) for n, x in enumerate("abc", 1)})
    assert {k: v.text for k, v in answers.items()} == {"L0001": "A", "L0002": "B", "L0003": "C"}
    assert calls == ["b", "a", "c"]
    assert work.counts["lines_run"] == 3
    assert work.counts["lines_reused"] == 1


def test_a_failed_batch_loses_nothing_of_those_before_it(work):
    requests = {f"L{n:04d}": Ask(text="crash" if n == 2 * BATCH else f"{n}") for n in range(2 * BATCH + 1)}
    with pytest.raises(EngineError):
        perform_many(work, shout_all, requests)
    assert work.counts["lines_run"] == 2 * BATCH
    with pytest.raises(EngineError):
        perform_many(work, shout_all, requests)
    assert work.counts["lines_reused"] == 2 * BATCH


def test_what_goes_in_and_out_of_a_result_is_linked(work):
    made = perform(work, shout, Ask(text="hi"))
    with work.ledger.session() as session:
        out = session.scalars(sa.select(t.ResultFile.sha256).where(t.ResultFile.direction == "out")).all()
    assert made.file.sha256 in out


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=6))
def test_canonical_json_does_not_depend_on_the_order_of_keys(mapping):
    assert canonical(mapping) == canonical(dict(reversed(mapping.items())))


def test_recipes_are_stable_across_versions_of_this_program():
    # A change of this hash re-dubs every catalog in the world: raise a step's version instead.
    assert recipe_of("shout", 1, Ask(text="hi")) == RECIPE


def test_not_a_number_never_enters_a_recipe():
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"x": float("nan")})


@step("choir", version=1, result=Answer)
def choir(work: Work, request: Ask) -> Answer:
    return perform_many(work, shout_all, {"a": request, "b": request.model_copy(update={"text": "b"})})["a"]


def test_what_an_item_took_counts_in_its_own_row_alone(work, monkeypatch):
    """Else a run's CPU seconds, and what they cost, would be summed up twice."""
    clock = iter([10.0, 12.0, 15.0, 21.0])  # choir begins, both items at once begin and end, choir ends
    monkeypatch.setattr("tasks.step._cpu", lambda: next(clock))
    perform(work, choir, Ask(text="hi"))
    assert {(row.step, row.item): row.cpu_seconds for row in executions(work)} == {
        ("shout.line", "a"): 1.5, ("shout.line", "b"): 1.5, ("choir", ""): 8.0}
