"""Warnings that are returned with results instead of being printed."""

from __future__ import annotations

from dataclasses import dataclass

from leakloc.core.messages import MESSAGES, Message


@dataclass(frozen=True)
class Note:
    """A warning or note for the reader of a report.

    The stages of leakloc make their notes with `note`. A plug-in may create a note with its own
    code and message; the report includes it unchanged.

    Parameters
    ----------
    code : str
        Stable machine-readable code: lower-case words joined by underscores.
    message : str
        One sentence, without patient data.
    """

    code: str
    message: str

    @property
    def definition(self) -> Message:
        """Entry of the code in `MESSAGES`; one without properties for the code of a plug-in."""
        return MESSAGES.get(self.code, Message())


def note(code: str, variant: str = "", /, **values: object) -> Note:
    """Return the note of a code, with its template filled.

    Parameters
    ----------
    code : str
        Key of `MESSAGES`.
    variant : str, optional
        Which template, if the message has several.
    **values
        Values of the placeholders of the template.

    Raises
    ------
    KeyError
        If the code or the variant is unknown, or a placeholder has no value.

    Examples
    --------
    >>> note("levels_given", "map", scheme="leakloc").message
    'The levels are from a supplied map (leakloc).'
    """
    return Note(code, MESSAGES[code].templates[variant].format(**values))
