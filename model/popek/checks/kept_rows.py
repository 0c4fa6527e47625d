"""Rows of a survey that are kept for the next time, by everything that they depend on.

That is the sources (`popek.keeping.sources`), what was asked of which form under which technique and settings, within
which bounds, and who answered.  A row is kept only where all of that can be told: not of a machine that has no name and
no file, of a technique that is not the machine's own, or where the clock may have had a say.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cattrs
from cattrs.errors import BaseValidationError

from popek.keeping.sources import Sources, sources
from popek.keeping.store import Store, key_of, store
from popek.machines import origin
from popek.solving.solver import solver_version

from .subject import Subject
from .survey_row import SurveyRow

if TYPE_CHECKING:
    from .survey import Request

_CONVERTER = cattrs.Converter()


class KeptRows:
    """The rows of one request in a store."""

    def __init__(self, request: Request, kept: Store, found: Sources) -> None:
        self._request, self._store, self._sources = request, kept, found
        subject = request.subject
        self._about = (
            subject.machine.name,
            subject.technique.name,
            sorted(subject.configuration.settings.items()),
            subject.time_is_state,
            subject.effort.rlimit,
            request.components,
            request.by_the_letter,
            solver_version(),
        )

    @classmethod
    def of(cls, request: Request) -> KeptRows | None:
        """Those of a request; None where nothing is to be kept of it."""
        kept = store() if request.keep else None
        if kept is None or request.certify is not None or request.leaks != "none":
            return None
        found = sources_of(request.subject, kept)
        return None if found is None else cls(request, kept, found)

    def _key(self, form: str, witness: bool) -> bytes:
        promised = self._request.promised(form)
        return key_of("row", *self._sources.of(form), form, *self._about, promised, witness)

    def get(self, form: str, *, witness: bool) -> SurveyRow | None:
        """The row of a form; None where it is not there.

        Args:
            witness: one with a witness, if the form is critical.
        """
        told = self._store.get(self._key(form, witness))
        if told is None:
            return None
        try:
            row = _CONVERTER.structure(json.loads(told), SurveyRow)
        except (ValueError, TypeError, KeyError, BaseValidationError):
            return None
        return row if row.form == form and row.from_store else None

    def put(self, row: SurveyRow, *, witness: bool) -> None:
        """Keep the row of a form."""
        if self._sources.still_so():
            told: dict[str, Any] = _CONVERTER.unstructure(row)
            text = json.dumps({**told, "seconds": 0.0, "solver_seconds": 0.0, "from_store": True})
            self._store.put(self._key(row.form, witness), text.encode())


def sources_of(subject: Subject[Any], kept: Store | None) -> Sources | None:
    """What the answers about a subject depend on; None where that cannot be told."""
    name = subject.found_as
    if name is None or subject.effort.timeout:
        return None
    if subject.machine.techniques.get(subject.technique.name) is not subject.technique:
        return None
    module, file = origin(name)
    if file is not None:  # it may be another the next time it is read
        return sources(subject.machine.instructions, [], file, store=kept)
    if name not in _named:
        _named[name] = sources(subject.machine.instructions, [module], store=kept)
    return _named[name]


_named: dict[str, Sources | None] = {}

__all__ = ["KeptRows", "sources_of"]
