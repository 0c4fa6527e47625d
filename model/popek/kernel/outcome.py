"""What one instruction does: it completes, it traps, or the model says it does not know."""

from __future__ import annotations

import enum
from typing import Generic, TypeAlias, TypeVar

import attrs

from popek.errors import PopekError

from .state import State
from .words import Word

S = TypeVar("S", bound=State)


@attrs.frozen
class Vector:
    """A way to trap: the manual's name and number, and what its error code looks like.

    Attributes:
        name: as the manual writes it (`#GP`).
        number: the vector number.
        error_code_width: bits of the error code; 0 when there is none.
    """

    name: str
    number: int
    error_code_width: int = 0

    def __str__(self) -> str:
        return self.name


class Target(enum.Enum):
    """Whose handler a trap on the hardware goes to."""

    VMM = "the VMM"
    GUEST = "the guest's own kernel"
    BELOW = "the firmware below the VMM"


class Fault(Exception):  # noqa: N818 - the manuals' word
    """Raised by semantics: the instruction does not complete, control goes to the vector.

    Args:
        vector: which trap.
        error_code: a number or a word of the vector's width; None when there is none.
        memory: True for a trap on a storage reference (Popek and Goldberg's memory trap), which
            sensitivity leaves aside.
        keeps: True when the state changes made so far stand (a trap after the effect); otherwise the
            state is as before the instruction.
        level: as in `Trap`.
    """

    def __init__(
        self,
        vector: Vector,
        error_code: Word | int | None = None,
        *,
        memory: bool = False,
        keeps: bool = False,
        level: str = "",
    ) -> None:
        if not isinstance(vector, Vector):
            raise DeclarationError(f'Fault({vector!r}): expected a Vector, such as Vector("#GP", 13)')
        super().__init__(vector, error_code)
        if error_code is not None:
            error_code = _code(vector, error_code)
        self.vector, self.error_code, self.memory, self.keeps = vector, error_code, memory, keeps
        self.level = level


def _code(vector: Vector, code: object) -> Word:
    """An error code as a word of the vector's width."""
    width = vector.error_code_width
    if not isinstance(code, Word | int):
        raise DeclarationError(f"Fault({vector}, {code!r}): expected a number or a word as the error code")
    if width < 1:
        raise DeclarationError(
            f"Fault({vector}, {code!r}): {vector} has no error code: "
            f"expected a width, such as Vector({vector.name!r}, {vector.number}, 32)"
        )
    if isinstance(code, int):
        return Word(width, code)
    if code.width != width:
        raise DeclarationError(
            f"Fault({vector}): an error code of {code.width} bits: {vector} has one of {width}"
        )
    return code


class MemoryFault(Fault):
    """A fault on a storage reference: outside sensitivity, reported for address-space questions."""

    def __init__(self, vector: Vector, error_code: Word | int | None = None) -> None:
        super().__init__(vector, error_code, memory=True)


class DeclarationError(PopekError):
    """A machine, or a part of one, is declared in a way that means nothing; the message says what was expected."""


class SemanticsError(PopekError):
    """A semantics does what is no semantics: another width, a name that is not there; one line with the place."""


class NotModelledError(Exception):
    """Raised by semantics where the model stops; no verdict passes over it silently."""


@attrs.frozen(eq=False)
class Next(Generic[S]):
    """The instruction completed."""

    state: S


@attrs.frozen(eq=False)
class Trap(Generic[S]):
    """Control goes to a handler.

    Attributes:
        level: the level of the machine whose handler it is, by the manual's name, where the semantics decide about
            that (delegation, exceptions taken at another level); empty where there is but one.  Who has the handler
            there, `Technique.target` says.
    """

    vector: Vector
    error_code: Word | None
    memory: bool
    state: S
    level: str = ""


@attrs.frozen
class NotModelled:
    """The model does not say what happens here, and why."""

    reason: str


Outcome: TypeAlias = "Next[S] | Trap[S] | NotModelled"
