"""Languages as containers name them: ISO 639-2 where they know no better, BCP-47 beside it.

ffmpeg writes three letters only. What is missing is written into room that was left for it in a name: the file keeps
its length, and no offset in it has to change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from langcodes import Language

from models.errors import InputError

SEGMENT, TRACKS, TRACK = 0x18538067, 0x1654AE6B, 0xAE
NAME, LANGUAGE_BCP47 = 0x536E, 0x22B59D
"""Elements of Matroska (RFC 9559)."""


def language_of(tag: str) -> Language:
    """A BCP-47 tag taken apart.

    Raises:
        InputError: It is none.
    """
    try:
        return Language.get(tag)
    except ValueError as error:
        raise InputError(f"{tag!r} is no language tag", hint="Give a BCP-47 tag such as es or pt-BR") from error


def alpha3(tag: str, variant: Literal["T", "B"] = "T") -> str:
    """ISO 639-2 of a tag, 'und' where there is none: MP4 wants the terminological codes, Matroska the bibliographic."""
    try:
        code = language_of(tag).to_alpha3(variant)
    except LookupError:
        return "und"
    return code if len(code) == 3 else "und"


def display_name(tag: str) -> str:
    """A language's name, in English."""
    return str(language_of(tag).display_name())


def with_room(name: str, tag: str) -> str:
    """A track's name with the room that `mark_mp4` or `mark_matroska` needs."""
    return name + " " * (len(tag) + 13)


# -- MP4 (ISO/IEC 14496-12) -------------------------------------------------------------------------------------------


def mark_mp4(path: Path, tags: Sequence[str]) -> None:
    """Give sound and text tracks their extended language, in place; and switch text tracks off.

    ffmpeg sets 'enabled' on the first track of each kind, whatever its disposition; players then show subtitles that
    nobody asked for.

    Args:
        path: An MP4 of ffmpeg's; names of its tracks were made by `with_room`.
        tags: BCP-47 of its sound and text tracks, in order.
    """
    left = iter(tags)
    with path.open("r+b") as file:
        moov = next(box for box in _boxes(file, 0, path.stat().st_size) if box[0] == b"moov")
        for _, start, stop in [box for box in _boxes(file, *moov[1:]) if box[0] == b"trak"]:
            parts = {kind: (at, over) for kind, at, over in _boxes(file, start, stop)}
            handler = next((at, over) for kind, at, over in _boxes(file, *parts[b"mdia"]) if kind == b"hdlr")
            file.seek(handler[0] + 8)
            kind = file.read(4)
            if kind == b"sbtl":
                file.seek(parts[b"tkhd"][0] + 3)
                flags = file.read(1)[0]
                file.seek(-1, 1)
                file.write(bytes([flags & ~1]))
            if kind in {b"sbtl", b"soun"}:
                _extend(file, *handler, next(left))


def _extend(file: BinaryIO, start: int, end: int, tag: str) -> None:
    """Shorten the name in the handler box at [start, end) by its room, and put the box `elng` there."""
    room = len(tag) + 13
    file.seek(start - 8)
    box = file.read(end - start + 8)
    short = box[8:-room - 1] + b"\0"
    extended = b"elng" + bytes(4) + tag.encode() + b"\0"
    file.seek(start - 8)
    file.write((len(short) + 8).to_bytes(4, "big") + b"hdlr" + short + room.to_bytes(4, "big") + extended)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of the content, end) of the boxes of an MP4 between two offsets."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        head = 8
        if size == 1:
            size, head = int.from_bytes(file.read(8), "big"), 16
        size = size or end - start
        yield kind, start + head, start + size
        start += size


# -- Matroska ---------------------------------------------------------------------------------------------------------


def mark_matroska(path: Path, tags: Sequence[str]) -> None:
    """Give sound and text tracks their BCP-47 tag, in place.

    Args:
        path: A Matroska file of ffmpeg's without checksums; names of those tracks were made by `with_room`.
        tags: BCP-47 of the tracks that have a name, in order.
    """
    left = iter(tags)
    with path.open("r+b") as file:
        segment = next(one for one in _elements(file, 0, path.stat().st_size) if one.kind == SEGMENT)
        tracks = next(one for one in _elements(file, segment.start, segment.end) if one.kind == TRACKS)
        for track in [one for one in _elements(file, tracks.start, tracks.end) if one.kind == TRACK]:
            name = next((one for one in _elements(file, track.start, track.end) if one.kind == NAME), None)
            if name:
                _add_tag(file, name, next(left))


class Element(NamedTuple):
    """An element of EBML (RFC 8794): where its size is written, where its content begins and ends."""

    kind: int
    size_at: int
    start: int
    end: int


def _add_tag(file: BinaryIO, name: Element, tag: str) -> None:
    """Shorten a name by its room, and put the tag's element there; zeros at the end of a name do not count."""
    file.seek(name.start)
    text = file.read(name.end - name.start).rstrip(b" ")
    element = LANGUAGE_BCP47.to_bytes(3, "big") + bytes([0x80 | len(tag)]) + tag.encode()
    size, width = name.end - name.start - len(element), name.start - name.size_at
    file.seek(name.size_at)
    file.write(((1 << (7 * width)) | size).to_bytes(width, "big") + text.ljust(size, b"\0") + element)


def _elements(file: BinaryIO, start: int, end: int) -> Iterator[Element]:
    """The elements between two offsets."""
    while start < end:
        file.seek(start)
        kind = _number(file, keep=True)
        size_at = file.tell()
        length = _number(file, keep=False)
        start = file.tell() + length
        yield Element(kind, size_at, start - length, start)


def _number(file: BinaryIO, *, keep: bool) -> int:
    """A number of variable length; identifiers keep the bit that tells their length."""
    first = file.read(1)[0]
    length = 9 - first.bit_length()
    value = first if keep else first & ((1 << (8 - length)) - 1)
    return int.from_bytes(bytes([value]) + file.read(length - 1), "big")
