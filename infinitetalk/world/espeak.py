"""A program: sentences in, sound with phonemes out, by libespeak-ng. Run by `speech`; needs the standard library alone.

The library keeps its state, noise included, from one call to the next, so that the same words are never the same
samples again; and closing it (1.51) now and then waits for ever. So it is opened once here, and every sentence is
spoken by a fork that is as if nothing had been said before, and that ends without closing anything.

Standard input: a line of JSON a sentence: text, voice, variant, parameters (number → value). Standard output, for each:
a line of JSON (rate, samples, events, spelt; or error), then the samples as 16-bit integers.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

SYNCHRONOUS, PHONEME_EVENTS, IPA = 2, 1, 2
UTF8, CHARACTERS, PHONEME = 1, 1, 7


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text_position", ctypes.c_int),
                ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
                ("user", ctypes.c_void_p), ("id", _Id))


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def main(name: str) -> None:
    """Open the library of this name and speak what is asked, each sentence in a fork."""
    try:
        library = ctypes.CDLL(name)
        rate = library.espeak_Initialize(SYNCHRONOUS, 0, None, PHONEME_EVENTS | IPA)
    except OSError:
        rate = 0
    for line in sys.stdin:
        if rate <= 0:
            _answer({"error": "missing"})
            continue
        child = os.fork()
        if child == 0:
            _speak(library, rate, json.loads(line))
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            _answer({"error": "crash"})


def _answer(head: dict[str, Any], samples: bytes = b"") -> None:
    data = json.dumps(head).encode() + b"\n" + samples
    while data:
        data = data[os.write(1, data):]


def _speak(library: Any, rate: int, wanted: dict[str, Any]) -> None:
    if not _choose(library, wanted):
        _answer({"error": "voice"})
        return
    blocks: list[bytes] = []
    events: list[tuple[int, str]] = []

    def heard(samples: Any, count: int, event: Any) -> int:
        if samples and count > 0:
            blocks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while event[index].type:
            if event[index].type == PHONEME:
                events.append((event[index].sample, event[index].id.string.decode("utf-8", "ignore")))
            index += 1
        return 0

    callback = _CALLBACK(heard)
    library.espeak_SetSynthCallback(callback)
    data = wanted["text"].encode()
    library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, CHARACTERS, 0, UTF8, None, None)
    samples = b"".join(blocks)
    _answer({"rate": rate, "samples": len(samples) // 2, "events": events, "spelt": _spelt(library, data)}, samples)


def _choose(library: Any, wanted: dict[str, Any]) -> bool:
    """Set the voice; a variant that is missing would silently be the usual voice, so its file is looked for."""
    library.espeak_Info.restype = ctypes.c_char_p
    folder = ctypes.c_char_p()
    library.espeak_Info(ctypes.byref(folder))
    found = (Path((folder.value or b"").decode()) / "voices" / "!v" / wanted["variant"]).is_file()
    if not found or library.espeak_SetVoiceByName(f"{wanted['voice']}+{wanted['variant']}".encode()):
        return False
    for parameter, value in wanted["parameters"].items():
        library.espeak_SetParameter(int(parameter), int(value), 0)
    return True


def _spelt(library: Any, data: bytes) -> list[str]:
    """The phonemes of a text with marks of stress, clause after clause."""
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    buffer = ctypes.create_string_buffer(data)
    rest = ctypes.c_void_p(ctypes.addressof(buffer))
    sounds: list[str] = []
    while rest.value:
        clause = library.espeak_TextToPhonemes(ctypes.byref(rest), UTF8, IPA | ord("_") << 8)
        sounds += (clause or b"").decode().replace(" ", "_").split("_")
    return [sound for sound in sounds if sound]


if __name__ == "__main__":
    main(sys.argv[1])
