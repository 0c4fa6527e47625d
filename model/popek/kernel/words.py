"""Fixed-width unsigned words, the one data type of every semantics.

A `Word` holds an integer or a symbolic term; the same expression works on both.  Mixing widths is an
error, `<` is unsigned, arithmetic is modulo 2**width, and bits are named as the manuals do:
`word[31:16]`, `word[9]`.  A comparison is a word of width 1, so `&`, `|` and `~` combine conditions
without branching, while `if`, `and`, `or`, `not` branch, and on a symbolic condition fork the
exploration that is running (`popek.kernel.exploration`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Final, SupportsIndex

from . import terms
from .terms import Term, mask


class WidthError(TypeError):
    """Two words of different width met, or a number does not fit a word."""


class SymbolicConditionError(TypeError):
    """A symbolic word was used where Python needs a definite answer, outside an exploration."""


# Who answers `if` on a symbolic condition: set by the exploration that runs in this context.
decider: ContextVar[Callable[[Term], bool] | None] = ContextVar("popek decider", default=None)


class Word:
    """An unsigned word of `width` bits.

    Args:
        width: in bits, at least 1.
        value: an integer with 0 <= value < 2**width, or a term of that width.

    Raises:
        WidthError: the value does not fit the width.

    >>> Word(8, 250) + 10
    Word(8, 0x4)
    >>> Word(32, 0x1202)[13:12]
    Word(2, 0x1)
    """

    __slots__ = ("value", "width")

    width: Final[int]
    value: Final[int | Term]

    def __init__(self, width: int, value: int | Term) -> None:
        if isinstance(value, Term):
            if value.width != width:
                raise WidthError(f"a term of {value.width} bits is no {width}-bit word")
            if value.op == "const":
                value = int(value.data)  # type: ignore[arg-type]
        elif value < 0 or value >> width:
            raise WidthError(f"{value:#x} does not fit {width} bits")
        self.width = width
        self.value = value

    # -- what it is ---------------------------------------------------------------------------

    @property
    def concrete(self) -> bool:
        """True when the word is a number."""
        return type(self.value) is int

    @property
    def term(self) -> Term:
        """The word as a term; a number becomes a constant."""
        value = self.value
        return terms.const(self.width, value) if isinstance(value, int) else value

    def __int__(self) -> int:
        if isinstance(self.value, int):
            return self.value
        raise SymbolicConditionError(f"{self!r} is symbolic: it has no definite value")

    __index__ = __int__

    def __bool__(self) -> bool:
        value = self.value
        if isinstance(value, int):
            return value != 0
        condition = (
            value if self.width == 1 else terms.invert(terms.compare("eq", value, terms.const(self.width, 0)))
        )
        if condition.op == "const":
            return bool(condition.data)
        decide = decider.get()
        if decide is None:
            raise SymbolicConditionError(
                f"'if' on the symbolic condition {condition!r} outside an exploration; "
                "combine conditions with & | ~ or ite(), or run under explore()"
            )
        return decide(condition)

    def __repr__(self) -> str:
        shown = f"{self.value:#x}" if isinstance(self.value, int) else repr(self.value)
        return f"Word({self.width}, {shown})"

    def __hash__(self) -> int:
        return hash((self.width, self.value))

    # -- helpers ------------------------------------------------------------------------------

    def _coerce(self, other: object) -> int | Term:
        if isinstance(other, Word):
            if other.width != self.width:
                raise WidthError(f"a {self.width}-bit and a {other.width}-bit word do not mix")
            return other.value
        if isinstance(other, int):
            if other < 0 or other >> self.width:
                raise WidthError(f"{other:#x} does not fit {self.width} bits")
            return int(other)
        raise TypeError(f"a word does not mix with {type(other).__name__}")

    def _arithmetic(self, op: str, other: object, *, swap: bool = False) -> Word:
        a, b = self.value, self._coerce(other)
        if swap:
            a, b = b, a
        if isinstance(a, int) and isinstance(b, int):
            return Word(self.width, terms.compute(op, self.width, a, b))
        return Word(self.width, terms.arithmetic(op, _lift(self.width, a), _lift(self.width, b)))

    def _compare(self, op: str, a: int | Term, b: int | Term) -> Word:
        if isinstance(a, int) and isinstance(b, int):
            if op == "ult":
                return TRUE if a < b else FALSE
            if op == "ule":
                return TRUE if a <= b else FALSE
        return Word(1, terms.compare(op, _lift(self.width, a), _lift(self.width, b)))

    # -- arithmetic and logic -----------------------------------------------------------------

    def __add__(self, other: Word | int) -> Word:
        return self._arithmetic("add", other)

    def __radd__(self, other: int) -> Word:
        return self._arithmetic("add", other)

    def __sub__(self, other: Word | int) -> Word:
        return self._arithmetic("sub", other)

    def __rsub__(self, other: int) -> Word:
        return self._arithmetic("sub", other, swap=True)

    def __mul__(self, other: Word | int) -> Word:
        return self._arithmetic("mul", other)

    def __floordiv__(self, other: Word | int) -> Word:
        """Unsigned quotient; division by zero gives all ones, as in SMT-LIB."""
        return self._arithmetic("udiv", other)

    def __mod__(self, other: Word | int) -> Word:
        """Unsigned remainder; modulo zero gives the dividend, as in SMT-LIB."""
        return self._arithmetic("urem", other)

    def __and__(self, other: Word | int) -> Word:
        return self._arithmetic("and", other)

    __rand__ = __and__

    def __or__(self, other: Word | int) -> Word:
        return self._arithmetic("or", other)

    __ror__ = __or__

    def __xor__(self, other: Word | int) -> Word:
        return self._arithmetic("xor", other)

    __rxor__ = __xor__

    def __lshift__(self, other: Word | int) -> Word:
        return self._arithmetic("shl", other)

    def __rshift__(self, other: Word | int) -> Word:
        """Logical: zeros come in."""
        return self._arithmetic("lshr", other)

    def arithmetic_shift_right(self, other: Word | int) -> Word:
        """Copies of the top bit come in."""
        return self._arithmetic("ashr", other)

    def __invert__(self) -> Word:
        value = self.value
        if isinstance(value, int):
            return Word(self.width, value ^ mask(self.width))
        return Word(self.width, terms.invert(value))

    def __neg__(self) -> Word:
        return Word(self.width, 0) - self

    # -- comparison: words of width 1 ---------------------------------------------------------

    def __eq__(self, other: object) -> Word:  # type: ignore[override]
        if not isinstance(other, Word | int):
            return NotImplemented
        a, b = self.value, self._coerce(other)
        if isinstance(a, int) and isinstance(b, int):
            return TRUE if a == b else FALSE
        return Word(1, terms.compare("eq", _lift(self.width, a), _lift(self.width, b)))

    def __ne__(self, other: object) -> Word:  # type: ignore[override]
        if not isinstance(other, Word | int):
            return NotImplemented
        return ~(self == other)

    def __lt__(self, other: Word | int) -> Word:
        return self._compare("ult", self.value, self._coerce(other))

    def __le__(self, other: Word | int) -> Word:
        return self._compare("ule", self.value, self._coerce(other))

    def __gt__(self, other: Word | int) -> Word:
        return self._compare("ult", self._coerce(other), self.value)

    def __ge__(self, other: Word | int) -> Word:
        return self._compare("ule", self._coerce(other), self.value)

    def signed_lt(self, other: Word | int) -> Word:
        """Two's complement <."""
        return self._compare("slt", self.value, self._coerce(other))

    def isin(self, numbers: Iterable[int]) -> Word:
        """1 when the word is one of the numbers; does not branch.

        >>> Word(4, 9).isin((1, 9))
        Word(1, 0x1)
        """
        return any_of(self == number for number in numbers)

    # -- bits and widths ----------------------------------------------------------------------

    def __getitem__(self, bits: slice | SupportsIndex) -> Word:
        """`word[13:12]` and `word[9]`: bits by number, the high one first, both included."""
        if isinstance(bits, slice):
            high, low = bits.start, bits.stop
        else:
            high = low = bits.__index__()
        if not 0 <= low <= high < self.width:
            raise WidthError(f"bits {high}:{low} of a {self.width}-bit word")
        value = self.value
        if isinstance(value, int):
            return Word(high - low + 1, value >> low & mask(high - low + 1))
        return Word(high - low + 1, terms.extract(value, high, low))

    def replace(self, high: int, low: int, bits: Word | int) -> Word:
        """The word with bits high:low replaced.

        >>> Word(8, 0xff).replace(5, 4, 0)
        Word(8, 0xcf)
        """
        width = high - low + 1
        new = bits if isinstance(bits, Word) else Word(width, bits)
        if new.width != width or not 0 <= low <= high < self.width:
            raise WidthError(f"a {new.width}-bit word for bits {high}:{low} of a {self.width}-bit word")
        if isinstance(self.value, int) and isinstance(new.value, int):
            return Word(self.width, self.value & ~(mask(width) << low) | new.value << low)
        old = self.term
        return Word(
            self.width,
            terms.concat(
                terms.extract(old, self.width - 1, high + 1), new.term, terms.extract(old, low - 1, 0)
            ),
        )

    def zero_extend(self, width: int) -> Word:
        """Zeros in front, up to `width` bits."""
        if width < self.width:
            raise WidthError(f"{self.width} bits do not extend to {width}")
        if isinstance(self.value, int):
            return Word(width, self.value)
        return Word(width, terms.concat(terms.const(width - self.width, 0), self.value))

    def sign_extend(self, width: int) -> Word:
        """Copies of the top bit in front, up to `width` bits."""
        if width < self.width:
            raise WidthError(f"{self.width} bits do not extend to {width}")
        return Word(width, terms.sign_extend(self.term, width))

    def truncate(self, width: int) -> Word:
        """The low `width` bits."""
        return self[width - 1 : 0]

    def resize(self, width: int) -> Word:
        """Truncated or zero-extended, whichever `width` asks for."""
        return self.truncate(width) if width <= self.width else self.zero_extend(width)


def _lift(width: int, value: int | Term) -> Term:
    return terms.const(width, value) if isinstance(value, int) else value


TRUE: Final = Word(1, 1)
FALSE: Final = Word(1, 0)


def symbol(name: str, width: int) -> Word:
    """A word that may have any value, called `name`."""
    return Word(width, terms.var(name, width))


def concat(*parts: Word) -> Word:
    """The parts side by side, the most significant first.

    >>> concat(Word(8, 0x12), Word(4, 3))
    Word(12, 0x123)
    """
    width = sum(part.width for part in parts)
    if all(part.concrete for part in parts):
        total = 0
        for part in parts:
            total = total << part.width | int(part)
        return Word(width, total)
    return Word(width, terms.concat(*(part.term for part in parts)))


def ite(condition: Word, then: Word, otherwise: Word) -> Word:
    """`then` where the condition (width 1) holds, else `otherwise`; does not branch."""
    if condition.width != 1:
        raise WidthError(f"a condition has width 1, not {condition.width}")
    if then.width != otherwise.width:
        raise WidthError(f"a {then.width}-bit and a {otherwise.width}-bit word do not mix")
    if isinstance(condition.value, int):
        return then if condition.value else otherwise
    return Word(then.width, terms.ite(condition.value, then.term, otherwise.term))


def all_of(conditions: Iterable[Word]) -> Word:
    """1 when every condition (width 1) holds; does not branch."""
    result = TRUE
    for condition in conditions:
        result = result & condition
    return result


def any_of(conditions: Iterable[Word]) -> Word:
    """1 when some condition (width 1) holds; does not branch."""
    result = FALSE
    for condition in conditions:
        result = result | condition
    return result
