"""Languages: Transcript → the same, its lines marked that are spoken in another language than the episode.

Only long enough lines that the identifier is sure of are marked: a foreign line that is dubbed is a smaller fault than
a line of the episode that is not.
"""

from __future__ import annotations

from models.languages import alike, sure
from models.ports import LanguageIdentifier
from models.records import EngineRef, Line, Request, Transcript
from tasks.step import Work, step


class LanguagesRequest(Request):
    """A transcript whose lines may be in several languages."""

    transcript: Transcript
    identifier: EngineRef


@step("languages", version=1, result=Transcript)
def find_languages(work: Work, request: LanguagesRequest) -> Transcript:
    """Set the language of lines that are in another one than the transcript; what is set already stays."""
    transcript = request.transcript
    if transcript.language == "und":
        return transcript
    identifier: LanguageIdentifier = work.engines.get("language-identifier", request.identifier)

    def marked(line: Line) -> Line:
        guess = identifier.identify(line.text)
        foreign = not line.language and sure(line.text, guess) and not alike(guess.language, transcript.language)
        return line.model_copy(update={"language": guess.language}) if foreign else line

    return transcript.model_copy(update={"lines": tuple(map(marked, transcript.lines))})
