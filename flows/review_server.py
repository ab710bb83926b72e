"""The page of `infinidub review serve`: one person, one machine. Everything that is shown is data, never markup.

It listens on the loopback address alone. Its address holds a random token, which becomes a cookie; requests under
another host name (DNS rebinding), from another origin (a page open beside it) or without the cookie are refused.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.review import go_on, infinidub
from flows.wiring import Workspace
from models.errors import InfinidubError, InputError
from models.rates import spoken_seconds
from models.recipe import sha256
from models.records import Artifact, Source, SpokenLine
from models.review import Review, ReviewLine
from models.timebase import CLOCK, seconds
from tasks import review
from tasks.sound import read_audio, write_flac
from tasks.subtitles import spoken_text

HOST = "127.0.0.1"
PAGE = 100
"""Lines in one answer, at most."""
MAX_BODY = 64 * 1024
AROUND = CLOCK // 5
"""Ticks of the source heard before and after a line."""
LONGEST = 120 * CLOCK
"""Ticks of the source in one clip, at most."""
SITE = {"/": ("index.html", "text/html; charset=utf-8"), "/app.js": ("app.js", "text/javascript; charset=utf-8"),
        "/style.css": ("style.css", "text/css; charset=utf-8")}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                               "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                               "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Lets through what the person with the token asks for, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app, self.token = app, token
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        self.cookie = f"infinidub-review-{port}"  # cookies do not tell ports apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._refusal(Request(scope)) or self.app
        await answer(scope, receive, dressed)

    def _refusal(self, request: Request) -> Response | None:
        headers = request.headers
        if headers.get("host") not in self.hosts:
            return PlainTextResponse("This is no page of that host.", 421)
        if request.url.path == "/" and self._is(request.query_params.get("token", "")):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
            return answer
        if not self._is(request.cookies.get(self.cookie, "")):
            return PlainTextResponse("Open the address that `infinidub review serve` printed.", 401)
        if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return PlainTextResponse("Another page asked for this.", 403)
        return self._wrong_body(headers) if request.method not in {"GET", "HEAD"} else None

    def _wrong_body(self, headers: Headers) -> Response | None:
        if headers.get("origin") not in {f"http://{host}" for host in self.hosts}:
            return PlainTextResponse("Another page asked for this.", 403)
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            return PlainTextResponse("Send JSON.", 415)
        length = headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_BODY:
            return PlainTextResponse("Too large.", 413)
        return None

    def _is(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


@dataclass
class Desk:
    """What the page asks for, as plain functions: JSON in, JSON out."""

    space: Workspace
    who: str
    episodes: Collection[str] | None
    """The only ones; None: all."""
    clips: Path
    start: Callable[[tuple[str, ...], Path], subprocess.Popen[bytes]]
    runs: dict[tuple[str, str], subprocess.Popen[bytes]] = field(default_factory=dict)
    """What goes on in the background here."""

    def reviews(self, _given: QueryParams) -> dict[str, Any]:
        """Everything that can be reviewed."""
        found = review.reviews(self.space.ledger, self.episodes)
        return {"who": self.who, "reviews": [{"episode": episode, "language": language, "state": state}
                                             for episode, language, state in found]}

    def lines(self, given: QueryParams) -> dict[str, Any]:
        """A page of lines: from `offset` on, or the one in which line `at` is; `show` is all, open or flagged."""
        found = self._load(given)
        show = given.get("show", "all")
        chosen = [line for line in found.lines
                  if show == "all" or (show == "open" and not (line.approved or line.locked))
                  or (show == "flagged" and (line.flags or line.other_source))]
        places = {line.id: place for place, line in enumerate(chosen)}
        offset = places.get(given.get("at", ""), _number(given.get("offset", "0"))) // PAGE * PAGE
        if offset >= len(chosen):
            offset = max(0, len(chosen) - 1) // PAGE * PAGE
        return {**self._head(found), "shown": len(chosen), "offset": offset, "page": PAGE,
                "lines": self._plain(found, chosen[offset:offset + PAGE])}

    def estimate(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """How long a text would take."""
        text, language, voice = (_text(given, name) for name in ("text", "language", "voice"))
        return {"seconds": spoken_seconds(spoken_text(text[:review.MAX_TEXT]), language, voice)}

    def edit(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Set a line's text."""
        found, line = self._line(given)
        text = spoken_text(_text(given, "text"))
        review.change(self.space.ledger, found.episode, found.language, {line.id: text}, {line.id: line.source},
                      self.who, was=_text(given, "was"))
        return self._answer(found, line.id)

    def approve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A line, or where none is named, all."""
        found = self._load(given)
        line = _text(given, "line")
        done = review.approve(self.space.ledger, found.episode, found.language, [line] if line else None, self.who)
        return self._answer(found, line, opened=done.opened)

    def lock(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a line's text, or let it go."""
        found, line = self._line(given)
        opened = False
        if line.locked:
            review.unlock(self.space.ledger, found.episode, found.language, [line.id], self.who)
        else:
            opened = review.lock(self.space.ledger, found.episode, found.language, [line.id], self.who).opened
        return self._answer(found, line.id, opened=opened)

    def run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Dub what was changed."""
        return self._answer(self._load(given), "", opened=True)

    def source(self, given: QueryParams) -> Path:
        """What is said in the source, as FLAC."""
        found, line = self._line(given)
        record = review.source_record(self.space.ledger, found.episode)
        if record is None:
            raise InputError("the episode was not read in yet", where=found.episode)
        audio = Source.model_validate(record).audio
        start, length = max(0, line.start - AROUND), min(line.end - line.start + 2 * AROUND, LONGEST)
        clip = self.clips / f"{sha256(f'{audio.sha256} {start} {length}'.encode())}.flac"
        if not clip.is_file():
            write_flac(clip, read_audio(self.space.store.path(audio), channels=1, start=start, length=length))
        return clip

    def dub(self, given: QueryParams) -> Path:
        """The line as it was voiced last, as FLAC."""
        found, line = self._line(given)
        spoken = review.spoken(self.space.ledger, found.episode, found.language).get(line.id)
        if spoken is None:
            raise InputError("was not voiced yet", where=line.id)
        return self.space.store.path(Artifact.model_validate(spoken["audio"]))

    # -- plumbing -----------------------------------------------------------------------------------------------------

    def _load(self, given: Mapping[str, Any]) -> Review:
        episode, language = _text(given, "episode"), _text(given, "language")
        if self.episodes is not None and episode not in self.episodes:
            raise InputError("is not of this catalog", where=episode)
        return review.load(self.space.ledger, episode, language)

    def _line(self, given: Mapping[str, Any]) -> tuple[Review, ReviewLine]:
        found, name = self._load(given), _text(given, "line")
        if name not in found.by_id:
            raise InputError(f"{found.episode} has no line {name!r}", where="line")
        return found, found.by_id[name]

    def _answer(self, before: Review, line: str, *, opened: bool = False) -> dict[str, Any]:
        said = self._go_on(before.episode, before.language) if opened else ""
        found = review.load(self.space.ledger, before.episode, before.language)
        return {**self._head(found), "said": said,
                "lines": self._plain(found, [found.by_id[line]] if line in found.by_id else [])}

    def _go_on(self, episode: str, language: str) -> str:
        """Start the rest of a language, on Prefect or here in the background; what became of it, in words."""
        key = (episode, language)
        if key in self.runs and self.runs[key].poll() is None:
            return "is being dubbed already; ask again when that has ended"
        rerun = go_on(self.space, episode, language)
        if rerun.flow_run:
            return rerun.words
        log = self.space.settings.state / "review-run.log"
        self.runs[key] = self.start(rerun.command, log)
        return f"is being dubbed; {log} says how it gets on"

    def _head(self, found: Review) -> dict[str, Any]:
        run = self.runs.get((found.episode, found.language))
        return {"episode": found.episode, "language": found.language, "state": found.state, "left_s": found.left_s,
                "on_timeout": found.on_timeout, "total": len(found.lines), "unapproved": len(found.unapproved),
                "changed": sum(line.changed for line in found.lines),
                "running": run is not None and run.poll() is None, "failed": bool(run and run.poll())}

    def _plain(self, found: Review, lines: list[ReviewLine]) -> list[dict[str, Any]]:
        spoken = review.spoken(self.space.ledger, found.episode, found.language)
        after = dict(zip((line.id for line in found.lines), (line.start for line in found.lines[1:]), strict=False))
        return [self._one(line, found.language, spoken.get(line.id), after.get(line.id)) for line in lines]

    def _one(self, line: ReviewLine, language: str, report: dict[str, Any] | None, following: int | None,
             ) -> dict[str, Any]:
        heard = SpokenLine.model_validate(report) if report else None
        return {
            "id": line.id, "start": seconds(line.start), "end": seconds(line.end), "speaker": line.speaker,
            "source": line.source, "text": line.text, "origin": line.origin, "changed": line.changed,
            "flags": [*line.flags, *(heard.flags if heard else ())], "candidates": list(line.candidates),
            "other_source": line.other_source,
            "approved": line.approved and {"who": line.approved.who, "at": line.approved.at.isoformat()},
            "locked": line.locked and {"who": line.locked.who, "at": line.locked.at.isoformat()},
            "voice": heard.voice if heard else "",
            "estimate": spoken_seconds(line.text, language, heard.voice if heard else ""),
            "room": max(0.0, seconds(max(line.end, following if following is not None else line.end) - line.start)),
            "spoken": heard and {"start": seconds(heard.start), "length": seconds(heard.length),
                                 "slot": [seconds(tick) for tick in heard.slot], "stretch": heard.stretch,
                                 "overflow": seconds(heard.overflow), "stale": heard.text != line.text}}


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise InputError("must be text", where=name)
    return value


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 9 else 0


def application(desk: Desk, token: str, port: int) -> ASGIApp:
    """The page and what it asks, behind the guard."""
    site = files("flows") / "review_site"

    def page(name: str, kind: str) -> Callable[[Request], Response]:
        return lambda _request: Response((site / name).read_bytes(), media_type=kind)

    def asked(function: Callable[[QueryParams], dict[str, Any] | Path]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            try:
                found = function(request.query_params)
            except InfinidubError as error:
                return _refused(error)
            return FileResponse(found, media_type="audio/flac") if isinstance(found, Path) else JSONResponse(found)

        return answer

    def told(function: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Any:
        async def answer(request: Request) -> Response:
            try:
                given = json.loads(await request.body())
                if not isinstance(given, dict):
                    raise InputError("must be an object", where="body")
                return JSONResponse(await run_in_threadpool(function, given))
            except InfinidubError as error:
                return _refused(error)
            except (ValueError, RecursionError):
                return JSONResponse({"error": "is no JSON"}, 400)

        return answer

    looks: dict[str, Callable[[QueryParams], dict[str, Any] | Path]] = {
        "reviews": desk.reviews, "lines": desk.lines, "source": desk.source,
        "dub": desk.dub}
    does = {"estimate": desk.estimate, "edit": desk.edit, "approve": desk.approve, "lock": desk.lock, "run": desk.run}
    app = Starlette(routes=[
        *(Route(path, page(*one)) for path, one in SITE.items()),
        Route("/favicon.ico", lambda _request: Response(status_code=204)),
        *(Route(f"/api/{name}", asked(one)) for name, one in looks.items()),
        *(Route(f"/api/{name}", told(one), methods=["POST"]) for name, one in does.items())])
    return Guard(app, token, port)


def _refused(error: InfinidubError) -> Response:
    return JSONResponse({"error": str(error)}, 409 if isinstance(error, InputError) else 500)


def serve(space: Workspace, who: str, port: int, episodes: Collection[str] | None, tell: Callable[[str], object],
          ) -> None:
    """Serve the page until Ctrl-C.

    Args:
        space: Whose texts they are.
        who: Is noted with everything that is done.
        port: 0: any free one.
        episodes: Full ids of the only ones that are shown; None: all.
        tell: Is told the address, once it can be opened.

    Raises:
        InputError: The port is taken.
    """
    token = secrets.token_urlsafe(32)
    with socket.socket() as listening, tempfile.TemporaryDirectory(prefix="review-",
                                                                   dir=space.settings.state / "scratch") as clips:
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((HOST, port))
            listening.listen(64)
        except (OSError, OverflowError) as error:
            raise InputError(f"cannot be listened on ({error})", where=f"--port {port}") from None
        port = listening.getsockname()[1]
        desk = Desk(space, who, episodes, Path(clips), in_background)
        config = uvicorn.Config(application(desk, token, port), log_level="warning", access_log=False, lifespan="off",
                                server_header=False)
        tell(f"http://{HOST}:{port}/?token={token}")
        uvicorn.Server(config).run(sockets=[listening])


def in_background(command: tuple[str, ...], log: Path) -> subprocess.Popen[bytes]:
    """Start this program in a process of its own, which outlives the page."""
    with log.open("ab") as file:
        return subprocess.Popen(infinidub(command), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                start_new_session=True)
