"""Content credentials: what a signed file says, that nothing of it can be changed unseen, and who may sign."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import c2pa
import ffmpeg
import pytest
from cryptography.hazmat.primitives import serialization as to
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pydantic import ValidationError

from flows.cli import run_command
from flows.jobs import Selected
from flows.pipeline import EpisodeJob
from flows.preflight import preflight
from flows.settings import Settings
from flows.wiring import open_workspace, watermarkers
from models.credentials import DEVELOPMENT, IPTC
from models.engines import EngineCache, describe
from models.engines import c2pa_identity as identities
from models.engines.c2pa_reader import read_credentials
from models.engines.c2pa_signer import C2paOptions, C2paSigner
from models.errors import InfinidubError, InfrastructureError, InputError
from models.ports import EngineHome
from models.records import Assembled, EngineRef, Loudness, Mix, Source
from tasks.ledger import Ledger
from tasks.media import frame_count, read_audio, run_ffmpeg, write_flac
from tasks.sign import SignedDub, SignRequest, sign
from tasks.step import Work, perform
from tasks.store import FileStore, hash_file
from tasks.trace import trace
from tasks.watermark import WatermarkRequest, watermark
from tests.clips import clicks
from tests.conftest import GivenEngines
from tests.embedded import EXAMPLES
from tests.fakes import episode_video

SECRET = "PRIVATE KEY"


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a development certificate."""
    folder = tmp_path_factory.mktemp("signer") / "credentials"
    identities.make_development_identity(folder)
    return folder


def use(work: Work, folder: Path, **connection: str) -> EngineRef:
    """Let `work` sign with the certificate in `folder`; its name in a request."""
    files = {"certificates": str(folder / identities.CHAIN), "key": str(folder / identities.KEY), **connection}
    secret = files.pop("secret", "")
    work.engines = EngineCache(lambda port, _: EngineHome(
        weights=lambda name: folder, connection=files if port == "signer" else {}, secret=lambda name: secret),
        lambda name: {})
    fingerprint = identities.read_identity(folder / identities.CHAIN).fingerprint
    return describe("signer", "c2pa", {}, lambda name: {}).model_copy(update={"weights": {"certificate": fingerprint}})


def a_mix(work: Work, path: Path, language: str = "es") -> Mix:
    file = work.store.put_file(path, "audio/flac")
    return Mix(language=language, mix=file, dialogue=file, bed=file, bed_kind="ducked", gain_db=0.0,
               loudness=Loudness(integrated_lufs=-23.0, true_peak_dbtp=-3.0))


def a_request(work: Work, signer: EngineRef, **fields: Any) -> SignRequest:
    path = work.scratch / "sound.flac"
    write_flac(path, clicks(4.0))
    video = work.store.put_file(episode_video(), "video/mp4")
    source = Source(video=video, original=video.sha256, width=192, height=128, rate=Fraction(25), frames=100,
                    audio=work.store.put_file(path, "audio/flac"), channels=2)
    dub = SignedDub(mix=a_mix(work, path), translator=EngineRef(name="ctranslate2", weights={"model": "0" * 64}),
                    synthesizer=EngineRef(name="kokoro", version=3), watermarker=EngineRef(name="spread-spectrum"))
    return SignRequest(**{
        "assembled": Assembled(language="es", video=video, subtitles={}, frames=100, rate=Fraction(25),
                               generated_frames=50, video_copied=False),
        "original": video, "source": source, "source_language": "en", "title": "The lamp", "dubs": (dub,),
        "generator": EngineRef(name="lite"), "generated": ((0, 25), (50, 75)), "signer": signer, **fields})


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, identity: Path) -> Iterator[Path]:
    """A signed file, and nothing of where it was made."""
    folder = tmp_path_factory.mktemp("signed")
    ledger = Ledger(f"sqlite:///{folder}/made.db")
    work = Work(store=FileStore(folder / "store"), ledger=ledger, engines=GivenEngines(), scratch=folder,
                run_id=ledger.begin_run("test", {}, {}), episode="series/e01", language="es")
    done = perform(work, sign, a_request(work, use(work, identity)))
    path = folder / "found.mp4"
    path.write_bytes(work.store.path(done.video).read_bytes())
    return path


def manifest(path: Path) -> dict[str, Any]:
    """By the library's own reader."""
    with path.open("rb") as file, c2pa.Reader("video/mp4", file) as reader:
        assert reader.get_validation_state() == "Valid"
        store = json.loads(reader.json())
    return store["manifests"][store["active_manifest"]]


# -- what is said -----------------------------------------------------------------------------------------------------


def test_a_signed_file_says_what_was_done_to_it(signed: Path) -> None:
    said = manifest(signed)
    actions = next(one["data"]["actions"] for one in said["assertions"] if one["label"].startswith("c2pa.actions"))
    by_name = {one["action"]: one for one in actions}
    assert [one["action"] for one in actions] == ["c2pa.opened", "c2pa.translated", "c2pa.dubbed",
                                                  "c2pa.watermarked.unbound", "c2pa.edited"]
    assert by_name["c2pa.translated"]["parameters"].items() >= {"sourceLanguage": "en", "targetLanguage": "es"}.items()
    assert by_name["c2pa.translated"]["digitalSourceType"] == IPTC + "trainedAlgorithmicMedia"
    assert by_name["c2pa.dubbed"]["digitalSourceType"] == IPTC + "compositeWithTrainedAlgorithmicMedia"
    assert by_name["c2pa.dubbed"]["softwareAgent"] == {"name": "kokoro", "version": "3"}
    assert [one["region"][0]["time"]["start"] for one in by_name["c2pa.edited"]["changes"]] == ["0.000", "2.000"]
    parent, sound = said["ingredients"]
    assert (parent["relationship"], parent["title"]) == ("parentOf", "The lamp")
    assert parent["instance_id"] == f"sha256:{hash_file(episode_video())}"
    assert sound["relationship"] == "componentOf"


def test_signing_leaves_picture_and_sound_as_they_are(signed: Path) -> None:
    assert frame_count(signed) == 100
    assert (read_audio(signed) == read_audio(episode_video())).all()


def test_what_people_gave_is_not_said_to_come_from_a_machine(work: Work, identity: Path) -> None:
    request = a_request(work, use(work, identity), generator=None, generated=())
    given = request.dubs[0].model_copy(update={"translator": None, "synthesizer": None, "watermarker": None})
    done = perform(work, sign, request.model_copy(update={"dubs": (given,)}))
    found = read_credentials(work.store.path(done.video))
    assert found is not None
    assert [(one.action, one.source_type) for one in found.actions] == [
        ("c2pa.opened", ""), ("c2pa.translated", ""), ("c2pa.dubbed", "")]
    assert found.provenance["generated_s"] == 0


def test_rules_are_no_trained_models(work: Work, identity: Path) -> None:
    request = a_request(work, use(work, identity))
    ruled = request.dubs[0].model_copy(update={"translator": EngineRef(name="apertium")})
    done = perform(work, sign, request.model_copy(update={"dubs": (ruled,)}))
    found = read_credentials(work.store.path(done.video))
    assert found is not None
    assert {one.action: one.source_type for one in found.actions}["c2pa.translated"] == "algorithmicMedia"


def test_a_source_with_credentials_keeps_them(work: Work, identity: Path, signed: Path) -> None:
    original = work.store.put_file(signed, "video/mp4")
    done = perform(work, sign, a_request(work, use(work, identity), original=original))
    found = read_credentials(work.store.path(done.video))
    assert found is not None
    assert [one.signed for one in found.ingredients] == [True, False]


def test_the_same_file_is_signed_once(work: Work, identity: Path) -> None:
    request = a_request(work, use(work, identity))
    first, again = perform(work, sign, request), perform(work, sign, request)
    assert first == again
    assert (work.counts["steps_run"], work.counts["steps_reused"]) == (1, 1)


# -- what is changed --------------------------------------------------------------------------------------------------


def tamper(how: str, data: bytes, other: bytes) -> bytes:
    at = data.index(b"mdat") + 500
    if how == "one byte of picture or sound":
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
    if how == "a word of the manifest":
        return data.replace(b"kokoro", b"people", 1)
    if how == "a manifest of another file":
        head = int.from_bytes(other[:4], "big")
        length = int.from_bytes(data[head:head + 4], "big")
        assert data[head + 4:head + 8] == b"uuid"
        return other[:head] + data[head:head + length] + other[head:]
    if how == "a manifest in pieces":
        at = data.index(b"jumb") + 4
        return data[:at] + bytes(60) + data[at + 60:]
    return data[:-200]


@pytest.mark.parametrize("how", ["one byte of picture or sound", "a word of the manifest", "a manifest of another file",
                                 "a manifest in pieces", "the end is missing"])
def test_whatever_is_changed_is_seen(signed: Path, tmp_path: Path, how: str,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "changed.mp4"
    path.write_bytes(tamper(how, signed.read_bytes(), episode_video().read_bytes()))
    assert run_command(["trace", str(path), "--out", str(tmp_path / "none"), "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["tampered"]
    assert said["credentials"]["problems"]


def test_without_a_database_credentials_are_verified(signed: Path, tmp_path: Path, identity: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["trace", str(signed), "--out", str(tmp_path / "none"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["credentials"]["state"], said["credentials"]["signer"]) == ("valid", DEVELOPMENT)
    assert (said["tampered"], said["credentials"]["trusted"], said["steps"]) == (False, False, [])
    assert not (tmp_path / "none").exists()
    assert run_command(["trace", str(signed), "--out", str(tmp_path / "none")]) == 0
    assert "not trusted" in capsys.readouterr().out
    found = read_credentials(signed, identity / identities.CHAIN)
    assert found is not None
    assert found.trusted


def test_files_without_credentials_have_none(signed: Path, tmp_path: Path) -> None:
    run_ffmpeg(ffmpeg.output(ffmpeg.input(str(signed)), str(tmp_path / "bare.mp4"), c="copy"), where="bare")
    run_ffmpeg(ffmpeg.output(ffmpeg.input(str(signed)), str(tmp_path / "bare.mkv"), c="copy"), where="bare")
    (tmp_path / "empty").touch()
    (tmp_path / "broken.mp4").write_bytes(episode_video().read_bytes()[:3000])
    for name in ("bare.mp4", "bare.mkv", "empty", "broken.mp4"):
        assert read_credentials(tmp_path / name) is None, name
    assert read_credentials(Path(__file__)) is None


# -- who signs --------------------------------------------------------------------------------------------------------


def an_identity(folder: Path, key: Any = None, *, until: int = 10, since: int = -1) -> Path:
    """A certificate of a root made for it, valid for so many days."""
    folder.mkdir()
    root, key = ec.generate_private_key(ec.SECP256R1()), key or ec.generate_private_key(ec.SECP256R1())
    made = identities._certificate, datetime.now(UTC)
    chain = (made[0]("Studio", key.public_key(), "Root", root, authority=False,
                     valid=(made[1] + timedelta(days=since), made[1] + timedelta(days=until))),
             made[0]("Root", root.public_key(), "Root", root, authority=True))
    (folder / identities.CHAIN).write_bytes(b"".join(one.public_bytes(to.Encoding.PEM) for one in chain))
    (folder / identities.KEY).write_bytes(
        key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))
    return folder


@pytest.mark.parametrize(("kind", "algorithm"), [
    ("EC P-384", "Es384"), ("RSA", "Ps256"), ("Ed25519", "Ed25519")])
def test_a_users_own_certificate_signs(work: Work, tmp_path: Path, kind: str, algorithm: str) -> None:
    key = {"EC P-384": lambda: ec.generate_private_key(ec.SECP384R1()), "Ed25519": ed25519.Ed25519PrivateKey.generate,
           "RSA": lambda: rsa.generate_private_key(65537, 2048)}[kind]()
    folder = an_identity(tmp_path / "own", key)
    secret = (folder / identities.KEY).read_text()
    (folder / identities.KEY).unlink()  # the key comes from the environment
    done = perform(work, sign, a_request(work, use(work, folder, secret=secret)))
    found = read_credentials(work.store.path(done.video), folder / identities.CHAIN)
    assert found is not None
    assert (found.signer, found.algorithm, found.trusted) == ("Studio", algorithm, True)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != folder]
    assert len(written) > 3  # database and artifacts
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


def test_what_cannot_sign_is_refused_before_it_signs(work: Work, tmp_path: Path) -> None:
    good = an_identity(tmp_path / "good")
    chain, key = (good / identities.CHAIN).read_bytes(), (good / identities.KEY).read_bytes()
    other = (an_identity(tmp_path / "other") / identities.KEY).read_bytes()
    locked = to.load_pem_private_key(key, None).private_bytes(
        to.Encoding.PEM, to.PrivateFormat.PKCS8, to.BestAvailableEncryption(b"hush"))
    first, second = chain.split(b"-----END CERTIFICATE-----\n")[:2]
    end = b"-----END CERTIFICATE-----\n"
    cases = {
        "expired on": (an_identity(tmp_path / "old", until=-2, since=-9) / identities.CHAIN).read_bytes(),
        "is valid from": (an_identity(tmp_path / "early", since=5) / identities.CHAIN).read_bytes(),
        "was not issued by": second + end + first + end,
        "holds no certificates": b"-----BEGIN NOTHING-----",
        "a key that C2PA does not allow": (an_identity(
            tmp_path / "weak", ec.generate_private_key(ec.SECP256K1())) / identities.CHAIN).read_bytes(),
    }
    for message, data in cases.items():
        (tmp_path / "chain.pem").write_bytes(data)
        with pytest.raises(InputError, match=message):
            identities.read_identity(tmp_path / "chain.pem")
    identity = identities.read_identity(good / identities.CHAIN)
    for message, data in {"is not the key of": other, "is encrypted": locked, "no private key": b"hush"}.items():
        with pytest.raises(InputError, match=message) as caught:
            identities.read_key(identity, data, "key.pem")
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None
    ref = use(work, good)
    asked = ref.model_copy(update={"weights": {"certificate": "0" * 64}})
    with pytest.raises(InputError, match="another one"):
        perform(work, sign, a_request(work, asked))


def test_a_certificate_that_c2pa_does_not_take_is_refused_before_anything_runs(tmp_path: Path) -> None:
    good, key = an_identity(tmp_path / "good"), ec.generate_private_key(ec.SECP256R1())
    itself = identities._certificate("Studio", key.public_key(), "Studio", key, authority=True)
    (tmp_path / "own.pem").write_bytes(itself.public_bytes(to.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))

    def check(chain: Path, secret: Path) -> None:
        space = open_workspace(Settings(out=tmp_path, production=True, check_speech=False, options={"c2pa": {
            "certificates": str(chain), "key": str(secret)}}))
        preflight(space, [Selected(EpisodeJob(id="s/e", video=chain, languages=(), out=tmp_path,
                                              transcript=chain), ())])

    check(good / identities.CHAIN, good / identities.KEY)
    with pytest.raises(InputError, match=r"self-signed.*must be issued by another"):
        check(tmp_path / "own.pem", tmp_path / "key.pem")
    with pytest.raises(InputError, match="is not the key of"):
        check(good / identities.CHAIN, tmp_path / "key.pem")


def test_signing_is_tried_once_for_all_episodes(work: Work, identity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = use(work, identity)
    signed: list[bool] = []
    monkeypatch.setattr(C2paSigner, "_sign", lambda *_given: signed.append(True))
    signer: Any = work.engines.get("signer", ref)
    signer.check()
    signer.check()
    assert signed == [True]


def test_a_time_stamp_authority_that_is_away_can_be_asked_again(work: Work, identity: Path) -> None:
    ref = use(work, identity)
    ref = ref.model_copy(update={"options": {"timestamps": "http://127.0.0.1:9/"}})
    with pytest.raises(InfrastructureError, match="time stamp authority") as caught:
        perform(work, sign, a_request(work, ref))
    assert caught.value.retryable
    with pytest.raises(ValidationError, match="no address"):
        C2paOptions(timestamps="file:///etc/passwd")


def test_a_development_certificate_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "credentials"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(identities.make_development_identity, [folder] * 8))
    assert [path.name for path in folder.parent.iterdir()] == ["credentials"]
    assert stat.S_IMODE((folder / identities.KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    first = identities.read_identity(folder / identities.CHAIN)
    identities.make_development_identity(folder)
    assert identities.read_identity(folder / identities.CHAIN).fingerprint == first.fingerprint
    assert first.development
    identities.read_key(first, identities.read_key_file(folder / identities.KEY), "key")


def test_production_wants_a_certificate_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(InfinidubError, match="production needs a certificate"):
        open_workspace(Settings(out=tmp_path, production=True)).signer(make=True)
    assert not (tmp_path / ".infinidub" / "credentials").exists()
    laptop = open_workspace(Settings(out=tmp_path))
    assert laptop.signer(make=False).weights == {}  # looking makes nothing
    assert list(laptop.signer(make=True).weights) == ["certificate"]
    assert list(laptop.signer(make=False).weights) == ["certificate"]
    # What it signed there is not done for production, which is how its runs come to be refused.
    assert open_workspace(Settings(out=tmp_path, production=True)).signer(make=False).weights == {}


# -- copies -----------------------------------------------------------------------------------------------------------


def test_a_copy_in_another_format_leads_back_to_its_run(work: Work, identity: Path, tmp_path: Path) -> None:
    use(work, identity)
    write_flac(tmp_path / "mix.flac", read_audio(EXAMPLES / "harbor-lights-s01e02.mp4", channels=2))
    request = WatermarkRequest(mix=a_mix(work, tmp_path / "mix.flac"), watermarker=EngineRef(
        name="spread-spectrum", options={"strength_db": 0.6}))
    done = perform(work, watermark, request)
    assert done.dialogue == request.mix.dialogue
    assert abs(done.loudness.integrated_lufs + 23) < 20
    copy, sound = tmp_path / "copy.mp3", ffmpeg.input(str(work.store.path(done.mix)))
    run_ffmpeg(ffmpeg.output(sound, str(copy), audio_bitrate="96k"), where="copy")
    found = trace(work.ledger, copy, watermarkers())
    assert (found.episode, found.language, found.credentials, found.tampered) == ("series/e01", "es", None, False)
    assert [mark.recipe for mark in found.marks] == [watermark.recipe(request)]
    assert found.steps[0].step == "watermark"
    elsewhere = trace(None, copy, watermarkers())
    assert (elsewhere.steps, elsewhere.marks[0].recipe) == ((), None)
    assert watermark.recipe(request).startswith(elsewhere.marks[0].payload)
