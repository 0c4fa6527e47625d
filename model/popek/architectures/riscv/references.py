"""References to storage: in whose name, and for what."""

from __future__ import annotations

import attrs

from popek.kernel.outcome import Vector
from popek.kernel.words import Word


@attrs.frozen
class ReferenceKind:
    """A way of referring to storage, with the vectors of its faults and the rights that protection must give."""

    misaligned: Vector
    access: Vector
    page: Vector
    guest_page: Vector
    rights: str


@attrs.frozen
class Actor:
    """In whose name an access is made: privilege (2 bits) and V (1 bit)."""

    prv: Word
    v: Word
