"""The way of the data: one episode, once; then each language.

The same functions serve every purpose: a `Runner` decides whether a step is looked up (`lookup`: what is left to do?),
done plainly (`perform`), or done as a task that Prefect shows (`prefect_runner`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from typing import cast as typed

from flows.pool import Pool
from flows.wiring import Workspace
from models import tables as t
from models.engines import adapter
from models.errors import InfinidubError, InputError
from models.languages import alike
from models.loudness import PRESETS
from models.ports import Diarizer, Synthesizer, Voice
from models.records import (
    Artifact,
    Assembled,
    CastVoice,
    Clips,
    Deliverable,
    EngineRef,
    Inspection,
    Mix,
    Package,
    Plan,
    ShotRequest,
    Shots,
    Source,
    Speech,
    Transcript,
    Translation,
)
from models.timebase import frame_to_ticks
from tasks import cast as register
from tasks import review
from tasks.assemble import (
    AssembleRequest,
    Dub,
    MatroskaRequest,
    MultiRequest,
    assemble,
    assemble_matroska,
    assemble_multi,
)
from tasks.captions import Cue, srt
from tasks.casting import other_engines
from tasks.consent import Consent, Need, likenesses, note_uses, require
from tasks.generate import GenerateRequest, generate, generate_shot
from tasks.hls import HlsRequest, hls
from tasks.ingest import IngestRequest, ingest
from tasks.inspect import InspectRequest, inspect
from tasks.languages import LanguagesRequest, find_languages
from tasks.mix import MixRequest, mix
from tasks.plan import PlanRequest, plan
from tasks.publish import publish, publish_multi
from tasks.shots import ShotsRequest, find_shots
from tasks.sign import SignedDub, SignRequest, sign
from tasks.speakers import SpeakersRequest, find_speakers
from tasks.step import NotDoneError, Q, R, Runner, Step, Work, lookup
from tasks.synthesize import DialogueRequest, SynthesizeRequest, read_dialogue, synthesize
from tasks.transcribe import TranscribeRequest, TranscriptFileRequest, read_transcript, transcribe
from tasks.translate import TranslateRequest, translate
from tasks.watermark import WatermarkRequest, watermark


@dataclass(frozen=True)
class EpisodeJob:
    """One episode to dub: a catalog's entry with its defaults filled in, or `infinidub dub`'s arguments."""

    id: str
    video: Path
    languages: tuple[str, ...]
    out: Path
    title: str = ""
    titles: dict[str, str] = field(default_factory=dict)
    """Language → title, where it has one of its own."""
    source_language: str | None = None
    me: Path | None = None
    transcript: Path | None = None
    diarization: Path | None = None
    script: dict[str, Path] = field(default_factory=dict)
    dialogue: dict[str, Path] = field(default_factory=dict)
    glossary: dict[str, dict[str, str]] = field(default_factory=dict)
    cast: dict[str, dict[str, str]] = field(default_factory=dict)
    people: dict[str, str] = field(default_factory=dict)
    generator: str | None = None
    picture_s: float = 0.0
    """Seconds of picture that are made at most of all its catalog: on it depends what 'small' means."""
    profile: str | None = None
    foreign: Literal["keep", "dub"] | None = None
    """Over the setting."""
    review: bool | None = None
    """Over the setting."""
    range: tuple[int, int] | None = None
    """Ticks [start, end) of an excerpt."""
    priority: int = 0


@dataclass(frozen=True)
class Prepared:
    """What all languages of an episode share."""

    source: Source
    shots: Shots
    transcript: Transcript

    @property
    def length(self) -> int:
        """Ticks of the episode."""
        return frame_to_ticks(self.source.frames, self.source.rate)


@dataclass(frozen=True)
class Planned:
    """One language up to the plan of its picture: what its shots are generated from."""

    cast: tuple[CastVoice, ...]
    translation: Translation
    speech: Speech
    mix: Mix
    plan: Plan

    @property
    def requests(self) -> tuple[ShotRequest, ...]:
        """Its shots that are generated."""
        return tuple(shot.request for shot in self.plan.shots if shot.request)


@dataclass(frozen=True)
class Localized:
    """One finished language."""

    deliverable: Deliverable
    mix: Mix
    speech: Speech
    plan: Plan
    inspection: Inspection


@dataclass(frozen=True)
class Pipeline:
    """An episode's steps, run by `run` in `work`."""

    space: Workspace
    job: EpisodeJob
    run: Runner
    dry: bool = False
    """Nothing is imported or noted: `run` only looks results up."""
    pool: Pool | None = None
    """Where missing shots are made; without one, in the step."""

    def _title(self, language: str) -> str:
        """The episode's title in a language, else in the nearest one that it has a title in."""
        for tag in (language, language.partition("-")[0]):
            if tag in self.job.titles:
                return self.job.titles[tag]
        return self.job.title

    @property
    def _planning(self) -> bool:
        return self.dry or self.run is lookup

    def prepare(self, work: Work) -> Prepared:
        """Ingest, shots, transcript, speakers: once per episode."""
        with at(self.job.id):
            takes = work.ledger.takes(self.job.id, "")
            source = self._step(work, takes, ingest, IngestRequest(original=self._import(self.job.video),
                                                                   range=self.job.range))
            shots = self._step(work, takes, find_shots, ShotsRequest(
                video=source.video, frames=source.frames, rate=source.rate, width=source.width, height=source.height,
                detector=self.space.engine("shot-detector"), faces=self.space.engine("face-detector")))
            transcript = self._speakers(work, takes, source)
            transcript = self._step(work, takes, find_languages, LanguagesRequest(
                transcript=transcript, identifier=self.space.engine("language-identifier")))
            if not self._planning:
                self._note_episode(work, source, transcript)
                self._enrol(work, transcript)
            return Prepared(source, shots, transcript)

    def _transcript(self, work: Work, takes: dict[str, int], source: Source) -> Transcript:
        given = self.job.transcript
        if given is None:
            return self._step(work, takes, transcribe, TranscribeRequest(
                audio=source.audio, language=self.job.source_language, recognizer=self.space.engine("recognizer")))
        with at(given.name):
            return self._step(work, takes, read_transcript, TranscriptFileRequest(
                file=self._import(given), format=given.suffix.lstrip(".").lower(),
                language=self.job.source_language or "en", length=frame_to_ticks(source.frames, source.rate)))

    def _speakers(self, work: Work, takes: dict[str, int], source: Source) -> Transcript:
        given = self.job.diarization
        request = SpeakersRequest(audio=source.audio, transcript=self._transcript(work, takes, source),
                                  diarizer=self.space.engine("diarizer"))
        if given is None:
            return self._step(work, takes, find_speakers, request)
        with at(given.name):
            return self._step(work, takes, find_speakers, request.model_copy(update={
                "diarization": self._import(given), "diarization_format": given.suffix.lstrip(".").lower(),
                "recording": (self.job.video.stem, self.job.id.rpartition("/")[2])}))

    def localize(self, work: Work, prepared: Prepared, language: str) -> Localized:
        """Everything that one language needs, to the delivered files."""
        return self.finish_language(work, prepared, self.plan_language(work, prepared, language), language)

    def plan_language(self, work: Work, prepared: Prepared, language: str) -> Planned:
        """Everything before the picture; its shots are then asked for."""
        with at(f"{self.job.id}·{language}"):
            if language == prepared.transcript.language:
                raise InputError(f"{language} is what is spoken already", hint="Name other languages to dub into")
            takes = work.ledger.takes(self.job.id, language)
            cast = () if language in self.job.dialogue else self._cast(work, prepared.transcript, language)
            translation, speech = self._speech(work, takes, prepared, language, cast)
            mixed = self._mix(work, takes, prepared, speech)
            planned = Planned(cast, translation, speech, mixed, self._plan(work, takes, prepared, speech))
            self._agreed(work, language, self._shown(work, planned))
            if self.pool and not self._planning:
                self.pool.order(work, planned.requests, self.job.priority)
            return planned

    def finish_language(self, work: Work, prepared: Prepared, planned: Planned, language: str) -> Localized:
        """The picture, and all that is made of it; waits for shots that are made elsewhere."""
        with at(f"{self.job.id}·{language}"):
            takes, speech = work.ledger.takes(self.job.id, language), planned.speech
            self._agreed(work, language, self._imitated(planned.cast))  # shots made elsewhere may have taken days
            clips = self._generate(work, takes, planned, self._agreed(work, language, self._shown(work, planned)))
            mark, mixed = self.space.watermarker(), planned.mix
            if mark:
                mixed = self._step(work, takes, watermark, WatermarkRequest(mix=mixed, watermarker=mark))
            assembled = self._step(work, takes, assemble, AssembleRequest(
                source=prepared.source, plan=planned.plan, clips=clips, mix=mixed, speech=speech, language=language,
                transcript=prepared.transcript, title=self._title(language), crf=self.space.settings.crf))
            assembled = self._sign(work, takes, prepared, assembled, [mixed], planned.plan)
            settings = self.space.settings
            matroska, package = self._formats(work, takes, prepared, assembled, self._title(language))
            inspection = self._step(work, takes, inspect, InspectRequest(
                source=prepared.source, shots=prepared.shots, assembled=assembled, mix=mixed, speech=speech,
                translation=planned.translation, plan=planned.plan, clips=clips, language=language,
                recognizer=self.space.engine("recognizer") if settings.check_speech else None,
                embedder=self.space.engine("face-embedder") if "face-embedder" in settings.engines else None,
                scorer=self.space.lip_scorer(next((one.generator.name for one in planned.requests), "")),
                loudness=PRESETS[settings.loudness]))
            if not self._planning:
                self._note_language(work, language, planned)
            deliverable = publish(work, out=self.job.out, episode=self.job.id, language=language, assembled=assembled,
                                  mix=mixed, speech=speech, plan=planned.plan, inspection=inspection,
                                  source=prepared.source, cast=planned.cast, stems=settings.stems,
                                  subtitles=settings.subtitles, matroska=matroska, package=package)
            return Localized(deliverable, mixed, speech, planned.plan, inspection)

    def multi(self, work: Work, prepared: Prepared, localized: dict[str, Localized]) -> Path:
        """The other product: the original picture with every dub as an alternate."""
        with at(f"{self.job.id}·multi"):
            takes = work.ledger.takes(self.job.id, "")
            assembled = self._step(work, takes, assemble_multi, MultiRequest(
                source=prepared.source, transcript=prepared.transcript, title=self.job.title,
                dubs=tuple(Dub(mix=done.mix, speech=done.speech) for done in localized.values())))
            assembled = self._sign(work, takes, prepared, assembled, [done.mix for done in localized.values()])
            matroska, package = self._formats(work, takes, prepared, assembled, self.job.title)
            return publish_multi(work, out=self.job.out, episode=self.job.id, assembled=assembled, matroska=matroska,
                                 package=package)

    def _formats(self, work: Work, takes: dict[str, int], prepared: Prepared, assembled: Assembled,
                 title: str) -> tuple[Artifact | None, Package | None]:
        """An assembled episode as Matroska and as HLS, where that is wanted."""
        formats, source = self.space.settings.formats, prepared.source
        matroska = self._step(work, takes, assemble_matroska, MatroskaRequest(
            source=source, assembled=assembled, title=title)).video if "mkv" in formats else None
        names = {prepared.transcript.language: self.job.title, **self.job.titles}
        package = self._step(work, takes, hls, HlsRequest(
            source=source, assembled=assembled, titles=names)) if "hls" in formats else None
        return matroska, package

    # -- the steps of a language --------------------------------------------------------------------------------------

    def _enrol(self, work: Work, transcript: Transcript) -> None:
        """Note who the speakers are in the series."""
        ref = self.space.engine("diarizer")
        same_voice = typed("type[Diarizer]", adapter("diarizer", ref.name)).SAME_VOICE
        register.enrol(work.ledger, self.job.id, transcript.speakers, register.engine_space(ref), same_voice)

    def _cast(self, work: Work, transcript: Transcript, language: str) -> tuple[CastVoice, ...]:
        """Who speaks with which voice: the same in all episodes of the series.

        Raises:
            InputError: In production, nobody chose a voice for somebody.
            ConsentError: A voice imitates a person who did not agree.
        """
        settings, ref = self.space.settings, self.space.engine("synthesizer")
        dubbed = {line.speaker for line in transcript.lines if (self.job.foreign or settings.foreign) == "dub"
                  or alike(line.language or transcript.language, transcript.language)}

        def offered() -> Sequence[Voice]:
            engine: Synthesizer = work.engines.get("synthesizer", ref)
            if not (voices := engine.voices(language)):
                raise InputError(f"{ref.name} has no voice for {language}",
                                 hint=f"These have: {other_engines(language, ref.name)}")
            return voices

        if not self._planning:
            self._enrol(work, transcript)
        found = register.voices_of(
            work.ledger, self.job.id, [one for one in transcript.speakers if one.id in dubbed], language,
            register.synthesizer_key(ref), self.job.cast.get(language, {}), None if self._planning else offered)
        if found is None:
            raise NotDoneError("translate")
        with self._looking():
            if settings.production:
                register.refuse_defaults(found, register.series_of(self.job.id), language)
        self._agreed(work, language, self._imitated(found))
        return found

    def _imitated(self, cast: Sequence[CastVoice]) -> list[Need]:
        """Consents that voices need."""
        kind = typed("type[Synthesizer]", adapter("synthesizer", self.space.settings.engine("synthesizer")))
        return [Need(person=person, kind="voice") for one in cast if (person := kind.clones(one.voice))]

    def _shown(self, work: Work, planned: Planned) -> list[Need]:
        """Consents that generated pictures need in production."""
        if not self.space.settings.production:
            return []
        return likenesses(register.shown(work.ledger, self.job.id, planned.requests, self.job.people))

    def _agreed(self, work: Work, language: str, needs: Sequence[Need]) -> tuple[Consent, ...]:
        """The consents that hold now.

        Raises:
            ConsentError: One is missing.
        """
        with self._looking():
            return require(work.ledger, needs, self.job.id, language)

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """What is refused is not there for who only looks: the other languages may be."""
        try:
            yield
        except InputError as error:
            if self._planning:
                raise NotDoneError("translate") from error
            raise

    def _speech(self, work: Work, takes: dict[str, int], prepared: Prepared, language: str,
                cast: Sequence[CastVoice]) -> tuple[Translation, Speech]:
        job, transcript = self.job, prepared.transcript
        voices = {one.speaker: one.voice for one in cast}
        script, dialogue = job.script.get(language), job.dialogue.get(language)
        track = self._import(dialogue) if dialogue else None
        text, kind = (self._import(script), script.suffix.lstrip(".").lower()) if script else (None, "")
        if track and not text:
            text, kind = self._heard_script(work, takes, track, language), "srt"
        translation: Translation = self._step(work, takes, translate, TranslateRequest(
            transcript=transcript, language=language, translator=self.space.engine("translator"),
            identifier=self.space.engine("language-identifier"), length=prepared.length,
            cast=voices, foreign=job.foreign or self.space.settings.foreign,
            strict=self.space.settings.production and not self._wants_review, glossary=job.glossary.get(language, {}),
            edits=review.edits(work.ledger, job.id, language, transcript.lines), script=text, script_format=kind))
        translation = self._reviewed(work, takes, transcript, translation, gate=track is None)
        if track:
            return translation, self._step(work, takes, read_dialogue, DialogueRequest(
                dialogue=track, transcript=transcript, translation=translation, length=prepared.length))
        request = SynthesizeRequest(
            transcript=transcript, translation=translation, synthesizer=self.space.engine("synthesizer"), cast=voices,
            length=prepared.length)
        self._note_consents(work, takes, synthesize, request, self._agreed(work, language, self._imitated(cast)))
        return translation, self._step(work, takes, synthesize, request)

    @property
    def _wants_review(self) -> bool:
        return self.space.settings.review if self.job.review is None else self.job.review

    def _reviewed(self, work: Work, takes: dict[str, int], transcript: Transcript, translation: Translation, *,
                  gate: bool) -> Translation:
        """The translation as it is voiced; where a review is asked for, once it is approved.

        Args:
            work: Of the language.
            takes: How often each step was asked for anew.
            transcript: What is said in the source.
            translation: What is to be said.
            gate: A review may hold it up; a finished dialogue track is voiced already.

        Raises:
            AwaitingReviewError: It is not approved yet.
        """
        settings, language = self.space.settings, translation.language
        gate = gate and self._wants_review
        if not self._planning:
            review.note_translation(work.ledger, self.job.id, transcript, translation)
            review.time_out(work.ledger, only=(self.job.id, language))
        if gate and not review.gate(work.ledger, self.job.id, transcript, translation):
            if self._planning:
                raise NotDoneError("translate")  # nobody was asked yet, and looking asks nobody
            raise review.awaited(review.ask(work.ledger, self.job.id, language, timeout_h=settings.review_timeout_h,
                                            on_timeout=settings.review_on_timeout))
        fixed = review.approved(work.ledger, self.job.id, transcript, translation)
        return self._step(work, takes, review.settle, review.ReviewedRequest(
            translation=translation, approved=fixed)) if fixed else translation

    def _heard_script(self, work: Work, takes: dict[str, int], track: Artifact, language: str) -> Artifact:
        """What is said in a finished dialogue track, as the script that was not given with it: for the subtitles."""
        heard = self._step(work, takes, transcribe, TranscribeRequest(
            audio=track, language=language, recognizer=self.space.engine("recognizer")))
        cues = [Cue(line.start, line.end, line.text) for line in heard.lines]
        return work.store.put_bytes(srt(cues).encode(), "application/x-subrip")

    def _mix(self, work: Work, takes: dict[str, int], prepared: Prepared, speech: Speech) -> Mix:
        return self._step(work, takes, mix, MixRequest(
            source_audio=prepared.source.audio, channels=prepared.source.channels, speech=speech,
            transcript=prepared.transcript, bed=self._import(self.job.me) if self.job.me else None,
            separator=self._separator, length=prepared.length, loudness=PRESETS[self.space.settings.loudness]))

    @property
    def _separator(self) -> EngineRef | None:
        """What makes a bed where none is given, if one was chosen."""
        chosen = self.job.me is None and "separator" in self.space.settings.engines
        return self.space.engine("separator") if chosen else None

    def _plan(self, work: Work, takes: dict[str, int], prepared: Prepared, speech: Speech) -> Plan:
        settings = self.space.settings
        return self._step(work, takes, plan, PlanRequest(
            source=prepared.source, shots=prepared.shots, speech=speech, region=settings.region,
            generator=self.space.generator(self.job.generator, self.job.picture_s, self.job.id, speech.language),
            profile=self.job.profile or settings.profile, prompt=settings.prompt,
            seed=settings.seed + takes.get("generate", 0)))

    def _generate(self, work: Work, takes: dict[str, int], planned: Planned, behind: Sequence[Consent]) -> Clips:
        request = GenerateRequest(requests=planned.requests)
        self._note_consents(work, takes, generate, request, behind)
        making = self.pool.making(work, planned.requests) if self.pool and not self._planning else nullcontext()
        with making:
            return self._step(work, takes, generate, request)

    def _sign(self, work: Work, takes: dict[str, int], prepared: Prepared, assembled: Assembled, mixes: Sequence[Mix],
              shown: Plan | None = None) -> Assembled:
        """Put content credentials into a file with these dubs and this picture (None: the original)."""
        made = [shot for shot in shown.shots if shot.request] if shown else []
        return self._step(work, takes, sign, SignRequest(
            assembled=assembled, original=self._import(self.job.video), source=prepared.source,
            source_language=prepared.transcript.language, title=self.job.title,
            dubs=tuple(self._signed_dub(mix) for mix in mixes),
            generator=made[0].request.generator if made and made[0].request else None,
            generated=tuple((shot.start, shot.end) for shot in made),
            signer=self.space.signer(make=not self._planning)))

    def _signed_dub(self, mix: Mix) -> SignedDub:
        voiced, written = mix.language not in self.job.dialogue, mix.language not in self.job.script
        return SignedDub(mix=mix, translator=self.space.engine("translator") if voiced and written else None,
                         synthesizer=self.space.engine("synthesizer") if voiced else None,
                         watermarker=self.space.watermarker())

    # -- plumbing -----------------------------------------------------------------------------------------------------

    def _step(self, work: Work, takes: dict[str, int], what: Step[Q, R], request: Q) -> R:
        return self.run(work, what, self._taken(takes, what, request))

    @staticmethod
    def _taken(takes: dict[str, int], what: Step[Q, R], request: Q) -> Q:
        take = takes.get(what.name, 0)
        return request.model_copy(update={"take": take}) if take else request

    def _note_consents(self, work: Work, takes: dict[str, int], what: Step[Q, R], request: Q,
                       behind: Sequence[Consent]) -> None:
        """Note what a result stands on, for `trace`."""
        if behind and not self._planning:
            note_uses(work.ledger, what.recipe(self._taken(takes, what, request)), behind, work.run_id)

    def _import(self, path: Path) -> Artifact:
        return self.space.import_file(path, keep=not self._planning)

    def _note_episode(self, work: Work, source: Source, transcript: Transcript) -> None:
        work.ledger.save([t.Episode(id=self.job.id, title=self.job.title, source_path=str(self.job.video),
                                    source_sha256=source.original, source=source.model_dump(mode="json"),
                                    updated=datetime.now(UTC))])
        work.ledger.replace_lines(self.job.id, "", [
            t.LineRow(episode=self.job.id, language="", line=line.id, speaker=line.speaker, text=line.text,
                      start=line.start, end=line.end, report={}) for line in transcript.lines])

    def _note_language(self, work: Work, language: str, planned: Planned) -> None:
        work.ledger.replace_lines(self.job.id, language, [
            t.LineRow(episode=self.job.id, language=language, line=line.id, speaker=line.speaker, text=line.text,
                      start=line.start, end=line.start + line.length, report=line.model_dump(mode="json"))
            for line in planned.speech.lines])
        work.ledger.replace_shots(self.job.id, language, [
            t.ShotRow(episode=self.job.id, language=language, shot=shot.shot, start=shot.start, end=shot.end,
                      kind=shot.kind, reason=shot.reason,
                      recipe=generate_shot.recipe(shot.request) if shot.request else None)
            for shot in planned.plan.shots])


@contextmanager
def at(where: str) -> Iterator[None]:
    """Name the place in errors that pass."""
    try:
        yield
    except InfinidubError as error:
        raise error.at(where) from error.__cause__


