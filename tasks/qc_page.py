"""The inspection as one page: every check, what it measured, its bar, and how the worst places look beside the source.

One HTML file that needs nothing else: pictures lie in it, there is no script, and what comes from outside is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from models.errors import InfinidubError
from models.ports import Image
from models.records import Artifact, Check, Frame, HeardBack, Inspection, Record, Request, Source
from models.timebase import Rate, ticks_to_frame, timecode
from tasks.checks import GROUPS
from tasks.media import FrameReader
from tasks.step import Work, find, perform, step

WIDTH = 240
"""Of a thumbnail, in pixels."""
MOST_PLACES = 24
MOST_LINES = 50
QUALITY = 75
NOTED = {"passed": ("ok", "✓", "passed"), "failed": ("bad", "✗", "failed"),
         "not measured": ("none", "–", "not measured")}
"""State → class, sign and word."""
INFORMS = ("warn", "!", "noted")
"""The same of a check that missed its bar and holds nothing up."""
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#57606a;--paper:#fff;--line:#d0d7de;--band:#f6f8fa;--ok:#116329;
--bad:#a40e26;--warn:#7d4e00}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#9198a1;--paper:#0d1117;--line:#30363d;--band:#161b22;
--ok:#56d364;--bad:#ff7b72;--warn:#e3b341}}
body{margin:0 auto;max-width:72rem;padding:1.5rem;font:15px/1.45 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}
h1{font-size:1.4rem;margin:0 0 .3rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.3rem 0}
.dim{color:var(--dim)}.ok{color:var(--ok)}.bad{color:var(--bad)}.warn{color:var(--warn)}.none{color:var(--dim)}
.verdict{font-size:1.1rem;font-weight:600}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
caption{text-align:left;color:var(--dim);padding-bottom:.4rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;border-bottom:1px solid var(--line)}
thead th{border-bottom:2px solid var(--line)}
th.group{background:var(--band);font-size:.85rem;text-transform:uppercase;letter-spacing:.05em}
td.value{white-space:nowrap;text-align:right;font-variant-numeric:tabular-nums}
td.state{white-space:nowrap;font-weight:600}td.bar{min-width:6rem}td.worst{overflow-wrap:anywhere;max-width:24rem}
th.check{font-weight:400;min-width:14rem}th.check code{font-weight:600}
.places{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:1rem}
figure{margin:0;border:1px solid var(--line);border-radius:6px;padding:.6rem}
figure div{display:flex;gap:4px}figure img{width:50%;height:auto}figcaption{font-size:.85rem;margin-top:.3rem}
"""


class PageRequest(Request):
    """What the page shows."""

    title: str
    """Of what it tells."""
    inspection: Inspection
    source: Artifact
    dubbed: Artifact
    rate: Rate
    frames: Frame


class Page(Record):
    """The finished page."""

    html: Artifact


def qc_page(work: Work, title: str, inspection: Inspection, source: Source, dubbed: Artifact) -> Artifact:
    """The page of an inspection, as HTML; made once."""
    request = PageRequest(title=title, inspection=inspection, source=source.video, dubbed=dubbed, rate=source.rate,
                          frames=source.frames)
    return (find(work, draw_page, request) or perform(work, draw_page, request)).html


@step("publish.qc", version=2, result=Page)
def draw_page(work: Work, request: PageRequest) -> Page:
    """Write the page."""
    places = _places(request)
    work.progress("publish: report of the checks", 0.0)
    pictures = _pictures(work, request, sorted(set(places.values())))
    html = "\n".join(_html(request, places, pictures))
    return Page(html=work.store.put_bytes(html.encode(), "text/html"))


# -- pictures of the worst places -------------------------------------------------------------------------------------


def _places(request: PageRequest) -> dict[str, int]:
    """Check → frame of its worst place; those that failed first, where there are too many."""
    found = [check for check in request.inspection.checks if check.at is not None]
    found.sort(key=lambda check: (not check.failed, check.state != "failed"))
    return {check.name: min(ticks_to_frame(check.at or 0, request.rate), request.frames - 1)
            for check in found[:MOST_PLACES]}


def _pictures(work: Work, request: PageRequest, frames: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Frame → source and dub, as data addresses; '' where there is no such frame."""
    pictures: dict[int, tuple[str, str]] = {}
    if not frames:
        return pictures
    with (FrameReader(work.store.path(request.source)) as source,
          FrameReader(work.store.path(request.dubbed)) as dubbed):
        for frame in frames:
            pictures[frame] = _picture(source, frame), _picture(dubbed, frame)
    return pictures


def _picture(reader: FrameReader, frame: int) -> str:
    try:
        return _address(reader.frame(frame))
    except InfinidubError:  # the page tells of files that are broken, too
        return ""


def _address(picture: Image) -> str:
    import cv2

    height = max(2, round(WIDTH * picture.shape[0] / picture.shape[1]))
    small = cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


# -- the page ---------------------------------------------------------------------------------------------------------


def _html(request: PageRequest, places: Mapping[str, int], pictures: Mapping[int, tuple[str, str]]) -> Iterator[str]:
    found, title = request.inspection, escape(request.title)
    yield "<!DOCTYPE html>"
    yield f'<html lang="en"><head><meta charset="utf-8"><title>Checks of {title}</title>'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield ('<meta http-equiv="Content-Security-Policy" '
           'content="default-src \'none\';img-src data:;style-src \'unsafe-inline\'">')
    yield f"<style>{STYLE}</style></head><body><main>"
    yield f"<h1>{title}</h1>"
    failed = [check.name for check in found.checks if check.failed]
    word = "Passed" if found.passed else f"Failed: {escape(', '.join(failed))}"
    yield f'<p class="verdict {"ok" if found.passed else "bad"}">{"✓" if found.passed else "✗"} {word}</p>'
    yield f'<p class="dim">{found.measured} of {len(found.checks)} checks were made; those that were not say why.</p>'
    yield from _table(found.checks)
    yield from _figures(found.checks, places, pictures)
    yield from _lines([line for line in found.heard if line.wer], found.language)
    yield "</main></body></html>\n"


def _table(checks: Sequence[Check]) -> Iterator[str]:
    yield '<div class="wide"><table><caption>Every check, what it measured, and the bar it is held to.</caption>'
    heads = ("Check", "State", "Measured", "Bar", "Worst place, or why it was not measured")
    yield f"<thead><tr>{''.join(f'<th scope=col>{head}</th>' for head in heads)}</tr></thead><tbody>"
    for check in checks:
        if check.name in GROUPS:
            yield f'<tr><th scope="colgroup" colspan="5" class="group">{escape(GROUPS[check.name])}</th></tr>'
        kind, sign, word = _noted(check)
        value = "" if check.value is None else escape(check.measured)
        informs = "" if check.gate else " <span class=dim>(informs)</span>"
        bar = "" if check.value is None else escape(check.bar) + informs
        where = escape(check.why or check.worst)
        if check.at is not None and timecode(check.at) not in check.worst:
            where += f" <span class=dim>{timecode(check.at)}</span>"
        yield (f'<tr><th scope="row" class="check"><code>{escape(check.name)}</code><br>'
               f'<span class="dim">{escape(check.what)}</span></th><td class="state {kind}">{sign} {word}</td>'
               f'<td class="value">{value}</td><td class="bar">{bar}</td>'
               f'<td class="worst" dir="auto">{where}</td></tr>')
    yield "</tbody></table></div>"


def _noted(check: Check) -> tuple[str, str, str]:
    return INFORMS if check.state == "failed" and not check.gate else NOTED[check.state]


def _figures(checks: Sequence[Check], places: Mapping[str, int], pictures: Mapping[int, tuple[str, str]],
             ) -> Iterator[str]:
    """A frame of source and dub for each worst place."""
    if not places:
        return
    yield '<h2>Worst places</h2><p class="dim">Left the source, right the dub.</p><div class="places">'
    for frame in sorted(pictures):
        here = [check for check in checks if places.get(check.name) == frame]
        names = ", ".join(f'<span class="{_noted(check)[0]}">{_noted(check)[1]} {escape(check.name)}</span>'
                          for check in here)
        shown = "".join(f'<img src="{picture}" alt="{whose} at {timecode(here[0].at or 0)}">' if picture else
                        f"<span class=dim>{whose}: no such frame</span>"
                        for whose, picture in zip(("Source", "Dub"), pictures[frame], strict=True))
        yield (f"<figure><div>{shown}</div><figcaption>{timecode(here[0].at or 0)}, frame {frame}: {names}"
               "</figcaption></figure>")
    yield "</div>"


def _lines(heard: Sequence[HeardBack], language: str) -> Iterator[str]:
    """Lines that were not heard as they were meant, the worst first."""
    if not heard:
        return
    tag = escape(language)
    yield "<h2>Lines that were heard otherwise</h2>"
    yield ('<div class="wide"><table><caption>The dialogue stem transcribed back: the worst '
           f"{min(len(heard), MOST_LINES)} of {len(heard)} lines with word errors. Recognizers mishear, too.</caption>")
    heads = ("Line", "At", "To be said", "Heard", "Word errors")
    yield f"<thead><tr>{''.join(f'<th scope=col>{head}</th>' for head in heads)}</tr></thead><tbody>"
    for line in heard[:MOST_LINES]:
        yield (f'<tr><th scope="row">{escape("+".join(line.lines))}</th><td>{timecode(line.at)}</td>'
               f'<td lang="{tag}" dir="auto">{escape(line.text)}</td>'
               f'<td lang="{tag}" dir="auto">{escape(line.heard)}</td>'
               f'<td class="value">{100 * line.wer:.0f} %</td></tr>')
    yield "</tbody></table></div>"
