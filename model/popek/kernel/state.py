"""Typed machine state: components with roles, registers with named fields, groups and banks.

A machine's state is a class that lists its components in the manual's order:

    class Toy(State):
        mode = word(1, role=Role.MODE)
        acc = word(8)
        flags = register(Flags)
        memory = memory(address=8, cell=8)

Semantics read and assign attributes (`cpu.acc = cpu.acc + 1`, `cpu.flags.z = ...`).  What is stored
is one word per component, under its dotted name (`cs.selector`), so a state copies in microseconds.

One module, though long: components, views and the state's own class know each other's insides, and nobody else
does.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

import attrs

from . import terms
from .left_open import LeftOpen, assert_declared
from .memory import Memory
from .words import Word, ite, symbol

UNDEFINED = "undefined "
"""What the names of results begin with that the manual leaves undefined."""


class Role(enum.Enum):
    """What a state component is for (Popek and Goldberg, generalised)."""

    MEMORY = "memory"
    MODE = "mode"  # privilege level, VMX root or non-root, PSR.vm
    PC = "pc"
    RESOURCE = "resource"  # decides which resources are reachable or how the machine behaves
    GENERAL = "general"  # program data
    HIDDEN = "hidden"  # real but not readable: descriptor caches
    TIME = "time"  # clocks: a resource only where the question says "time is state"


@attrs.frozen
class Leaf:
    """The smallest named part of a state: a whole component or some of its bits.

    Attributes:
        name: dotted, as shown to people (`eflags.if`).
        component: the component that holds it (`eflags`).
        high, low: its bits in the component, both included.
        role: what it is for.
        reset: its value in the plain reset state.
    """

    name: str
    component: str
    high: int
    low: int
    role: Role
    reset: int

    @property
    def width(self) -> int:
        """In bits."""
        return self.high - self.low + 1


@attrs.frozen
class Slot:
    """One stored component: a word of `width` bits or a memory."""

    name: str
    width: int
    role: Role
    reset: int
    fields: tuple[tuple[str, int, int, Role | None], ...] = ()
    address: int = 0  # bits of an address; 0 for a word

    def leaves(self) -> Iterator[Leaf]:
        """The named fields, and what lies between them, from the low bit up."""
        if self.address:
            return
        position = 0
        for name, high, low, role in sorted(self.fields, key=lambda f: f[2]):
            if low > position:
                yield self._leaf(None, low - 1, position, None)
            yield self._leaf(name, high, low, role)
            position = high + 1
        if position < self.width:
            yield self._leaf(None, self.width - 1, position, None)

    def _leaf(self, field: str | None, high: int, low: int, role: Role | None) -> Leaf:
        if field is not None:
            name = f"{self.name}.{field}"
        elif (high, low) == (self.width - 1, 0):
            name = self.name
        else:
            name = f"{self.name}[{high}:{low}]" if high > low else f"{self.name}[{high}]"
        reset = self.reset >> low & terms.mask(high - low + 1)
        return Leaf(name, self.name, high, low, role or self.role, reset)


# -- declarations ---------------------------------------------------------------------------------


class _Note:
    """A note of a working copy, which is no part of the state, and what is noted to begin with."""

    def __init__(self, slot: str, default: object) -> None:
        self._slot, self._default = slot, default

    def __get__(self, view: object, owner: type) -> Any:
        return self._default if view is None else getattr(view, self._slot, self._default)

    def __set__(self, view: object, new: object) -> None:
        setattr(view, self._slot, new)


class Declaration(type):
    """Classes whose instances have what they declare, and nothing else: `cpu.timr = ...` is an error, not a new name.

    An annotation, `started_at: Word`, declares a note of a working copy, which is no part of the state.
    """

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any
    ) -> Declaration:
        """The class, without a dictionary in its instances."""
        noted = [n for n, kind in namespace.get("__annotations__", {}).items() if "ClassVar" not in str(kind)]
        slots = [f"{n}_noted" if n in namespace else n for n in noted]
        for note, slot in zip(noted, slots, strict=True):
            if note in namespace:
                namespace[note] = _Note(slot, namespace[note])
        namespace.setdefault("__slots__", tuple(slots))
        return super().__new__(mcs, name, bases, namespace, **kwargs)


class Bits:
    """A named field of a register: `iopl = bits(13, 12)`."""

    def __init__(self, high: int, low: int, role: Role | None) -> None:
        if low < 0 or high < low:
            raise ValueError(f"bits({high}, {low}): expected the higher number first, from 0")
        _assert_role(role, None)
        self.high, self.low, self.role = high, low, role

    @overload
    def __get__(self, view: None, owner: type) -> Self: ...
    @overload
    def __get__(self, view: Register, owner: type) -> Word: ...
    def __get__(self, view: Register | None, owner: type) -> Self | Word:
        return self if view is None else view.value[self.high : self.low]

    def __set__(self, view: Register, new: Word | int) -> None:
        view.value = view.value.replace(self.high, self.low, new)


def bits(high: int, low: int, *, role: Role | None = None) -> Bits:
    """Bits high:low of a register, both included; without a role, the register's own."""
    return Bits(high, low, role)


def bit(number: int, *, role: Role | None = None) -> Bits:
    """One bit of a register."""
    return Bits(number, number, role)


def _assert_role(role: Any, *also: Any) -> None:
    if not isinstance(role, Role) and role not in also:
        raise TypeError(f"role={role!r}: expected one of {', '.join(map(str, Role))}")


def _assert_sizes(width: Any, roles: Sequence[Any], *resets: int) -> None:
    """A component's width, roles and values of reset can be what they are."""
    if not isinstance(width, int) or width < 1:
        raise TypeError(f"{width!r} bits: expected a number above 0")
    for role in roles:
        _assert_role(role)
    for reset in resets:
        if reset < 0 or reset >> width:
            raise ValueError(f"reset={reset:#x} does not fit {width} bits")


class _View(metaclass=Declaration):
    """A place in a state: one prefix, or several chosen by an index."""

    __slots__ = ("_index", "_prefixes", "_state")

    def __init__(self, state: State, prefixes: tuple[str, ...], index: Word | None = None) -> None:
        self._state, self._prefixes, self._index = state, prefixes, index


class Register(_View):
    """A word with named fields.  Subclass it and list the fields with `bits` and `bit`."""

    __slots__ = ()

    @property
    def value(self) -> Word:
        """The whole register."""
        return self._state.read_choice(self._prefixes, self._index)

    @value.setter
    def value(self, new: Word) -> None:
        self._state.write_choice(self._prefixes, self._index, new)

    @classmethod
    def fields(cls) -> Iterator[tuple[str, Bits]]:
        """The named fields, in declared order; a trailing underscore is dropped (`if_`)."""
        for klass in reversed(cls.__mro__):
            for name, attribute in vars(klass).items():
                if isinstance(attribute, Bits):
                    yield name.rstrip("_"), attribute


class Group(_View):
    """Components that belong together (a segment register).  Subclass it and list them."""

    __slots__ = ()


R = TypeVar("R", bound=Register)
G = TypeVar("G", bound=Group)


class Component:
    """A declaration; `slots` lists what it stores."""

    name: str = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def slots(self, prefix: str, roles: Mapping[str, Role]) -> Iterator[Slot]:
        """The stored components below `prefix`."""
        raise TypeError(f"{type(self).__name__} stores nothing")

    def _places(self, view: State | _View) -> tuple[State, tuple[str, ...], Word | None]:
        if isinstance(view, State):
            return view, (self.name,), None
        return view._state, tuple(f"{p}.{self.name}" for p in view._prefixes), view._index


class WordComponent(Component):
    """A plain word."""

    def __init__(self, width: int, role: Role, reset: int) -> None:
        self.width, self.role, self.reset = width, role, reset
        _assert_sizes(width, [role], reset)

    @overload
    def __get__(self, view: None, owner: type) -> Self: ...
    @overload
    def __get__(self, view: State | _View, owner: type) -> Word: ...
    def __get__(self, view: State | _View | None, owner: type) -> Self | Word:
        if view is None:
            return self
        if isinstance(view, State):
            return view._words[self.name]
        state, prefixes, index = self._places(view)
        return state.read_choice(prefixes, index)

    def __set__(self, view: State | _View, new: Word | int) -> None:
        word = new if isinstance(new, Word) else Word(self.width, new)
        state, prefixes, index = self._places(view)
        state.write_choice(prefixes, index, word)

    def slots(self, prefix: str, roles: Mapping[str, Role]) -> Iterator[Slot]:
        """What is stored under the name `prefix`, with roles that override its own."""
        yield Slot(prefix, self.width, roles.get("", self.role), self.reset)


class RegisterComponent(Component, Generic[R]):
    """A word with named fields."""

    def __init__(self, kind: type[R], width: int, role: Role, reset: int) -> None:
        self.kind, self.width, self.role, self.reset = kind, width, role, reset
        _assert_sizes(width, [role], reset)
        for name, field in kind.fields():
            if field.high >= width:
                raise ValueError(f"{kind.__name__}.{name}: bit {field.high} of a register of {width} bits")

    @overload
    def __get__(self, view: None, owner: type) -> Self: ...
    @overload
    def __get__(self, view: State | _View, owner: type) -> R: ...
    def __get__(self, view: State | _View | None, owner: type) -> Self | R:
        return self if view is None else self.kind(*self._places(view))

    def __set__(self, view: State | _View, new: Word | int) -> None:
        word = new if isinstance(new, Word) else Word(self.width, new)
        state, prefixes, index = self._places(view)
        state.write_choice(prefixes, index, word)

    def slots(self, prefix: str, roles: Mapping[str, Role]) -> Iterator[Slot]:
        """What is stored under the name `prefix`, with roles that override its own."""
        base = roles.get("", self.role)
        fields = tuple((n, f.high, f.low, roles.get(n, f.role)) for n, f in self.kind.fields())
        yield Slot(prefix, self.width, base, self.reset, fields)


class SameRegister(RegisterComponent[R]):
    """Another name for a register; it stores nothing."""

    def __init__(self, kind: type[R], width: int, of: str) -> None:
        super().__init__(kind, width, Role.GENERAL, 0)
        self.name = of

    def __set_name__(self, owner: type, name: str) -> None:
        """The name stays that of the register."""

    def slots(self, prefix: str, roles: Mapping[str, Role]) -> Iterator[Slot]:
        """None."""
        return iter(())


class GroupComponent(Component, Generic[G]):
    """Components that belong together."""

    def __init__(self, kind: type[G], roles: Mapping[str, Role], resets: Mapping[str, int]) -> None:
        self.kind, self.roles, self.resets = kind, roles, resets
        for role in roles.values():
            _assert_role(role)

    @overload
    def __get__(self, view: None, owner: type) -> Self: ...
    @overload
    def __get__(self, view: State | _View, owner: type) -> G: ...
    def __get__(self, view: State | _View | None, owner: type) -> Self | G:
        return self if view is None else self.kind(*self._places(view))

    def slots(self, prefix: str, roles: Mapping[str, Role]) -> Iterator[Slot]:
        """What is stored under the name `prefix`, with roles that override its own."""
        merged = {**self.roles, **roles}
        for name, part in _declared(self.kind).items():
            below = {k[len(name) :].lstrip("."): r for k, r in merged.items() if _below(k, name)}
            for slot in part.slots(f"{prefix}.{name}", below):
                yield attrs.evolve(slot, reset=self.resets.get(name, slot.reset))


def _declared(kind: type) -> dict[str, Component]:
    """The components of a class in declared order; what a subclass declares again keeps its place."""
    found: dict[str, Component] = {}
    for klass in reversed(kind.__mro__):
        found |= {name: part for name, part in vars(klass).items() if isinstance(part, Component)}
    return found


def _below(path: str, name: str) -> bool:
    return path == name or path.startswith(name + ".")


class WordBank:
    """A register file as semantics see it: `cpu.gpr[number]`, the number concrete or symbolic."""

    __slots__ = ("_names", "_state")

    def __init__(self, state: State, names: tuple[str, ...]) -> None:
        self._state, self._names = state, names

    def __getitem__(self, number: Word | int) -> Word:
        return self._state.read_choice(*_choose(self._names, number))

    def __setitem__(self, number: Word | int, new: Word) -> None:
        names, index = _choose(self._names, number)
        self._state.write_choice(names, index, new)

    def __len__(self) -> int:
        return len(self._names)


def _choose(names: tuple[str, ...], number: Word | int) -> tuple[tuple[str, ...], Word | None]:
    if isinstance(number, int) or number.concrete:
        return (names[int(number)],), None
    return names, number


class BankComponent(Component):
    """A register file: one word per name."""

    def __init__(self, names: Sequence[str], width: int, role: Role, resets: Mapping[str, int]) -> None:
        self.names, self.width, self.role, self.resets = tuple(names), width, role, resets
        _assert_sizes(width, [role], *resets.values())

    @overload
    def __get__(self, view: None, owner: type) -> Self: ...
    @overload
    def __get__(self, view: State, owner: type) -> WordBank: ...
    def __get__(self, view: State | None, owner: type) -> Self | WordBank:
        return self if view is None else WordBank(view, self.names)

    def slots(self, prefix: str, roles: Mapping[str, Role]) -> Iterator[Slot]:
        """What is stored under the name `prefix`, with roles that override its own."""
        for name in self.names:
            yield Slot(name, self.width, self.role, self.resets.get(name, 0))


class MemoryComponent(Component):
    """Storage."""

    def __init__(self, address: int, cell: int, role: Role) -> None:
        self.address, self.cell, self.role = address, cell, role
        _assert_sizes(cell, [role])
        _assert_sizes(address, [])

    @overload
    def __get__(self, view: None, owner: type) -> Self: ...
    @overload
    def __get__(self, view: State, owner: type) -> Memory: ...
    def __get__(self, view: State | None, owner: type) -> Self | Memory:
        return self if view is None else view._memories[self.name]

    def __set__(self, view: State, new: Memory) -> None:
        view._memories[self.name] = new

    def slots(self, prefix: str, roles: Mapping[str, Role]) -> Iterator[Slot]:
        """What is stored under the name `prefix`, with roles that override its own."""
        yield Slot(prefix, self.cell, self.role, 0, address=self.address)


def word(width: int, *, role: Role = Role.GENERAL, reset: int = 0) -> WordComponent:
    """A word of `width` bits."""
    return WordComponent(width, role, reset)


def register(
    kind: type[R], width: int = 32, *, role: Role = Role.GENERAL, reset: int = 0
) -> RegisterComponent[R]:
    """A word of `width` bits with the named fields of `kind`."""
    return RegisterComponent(kind, width, role, reset)


def same(kind: type[R], width: int, of: str) -> SameRegister[R]:
    """Another name for the register called `of`, which is declared with the same kind and width."""
    return SameRegister(kind, width, of)


def group(
    kind: type[G], *, roles: Mapping[str, Role] | None = None, resets: Mapping[str, int] | None = None
) -> GroupComponent[G]:
    """The components of `kind`; `roles` and `resets` by their names below it (`selector.rpl`)."""
    return GroupComponent(kind, roles or {}, resets or {})


def bank(
    names: Sequence[str], width: int, *, role: Role = Role.GENERAL, resets: Mapping[str, int] | None = None
) -> BankComponent:
    """A register file of `width`-bit words."""
    return BankComponent(names, width, role, resets or {})


def memory(*, address: int, cell: int = 8, role: Role = Role.MEMORY) -> MemoryComponent:
    """Storage of `cell`-bit cells with `address`-bit addresses."""
    return MemoryComponent(address, cell, role)


# -- the state itself -----------------------------------------------------------------------------


class State(metaclass=Declaration):
    """A machine state.  Subclass it and list the components; `reset()` makes the first one."""

    __slots__ = ("_left_open", "_memories", "_undefined", "_words")

    layout: ClassVar[tuple[Slot, ...]] = ()
    leaves: ClassVar[tuple[Leaf, ...]] = ()
    leaves_of: ClassVar[Mapping[str, tuple[Leaf, ...]]] = {}  # by component
    _leaf_named: ClassVar[Mapping[str, Leaf]] = {}

    _words: dict[str, Word]
    _memories: dict[str, Memory]
    _undefined: Callable[[str, int], Word]
    _left_open: tuple[LeftOpen, ...] | None  # of the machine that takes a step

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        slots: list[Slot] = []
        for name, part in _declared(cls).items():
            if hasattr(State, name):
                raise TypeError(
                    f"{cls.__name__}: no component can be called {name!r}: every state has that already"
                )
            slots.extend(part.slots(name, {}))
        cls._assert_apart(slots)
        cls._arrange(slots, {slot.name: tuple(slot.leaves()) for slot in slots})

    @classmethod
    def _assert_apart(cls, slots: Iterable[Slot]) -> None:
        """No two components, banks' registers among them, store under one name."""
        known: set[str] = set()
        for slot in slots:
            names = {slot.name, *(leaf.name for leaf in slot.leaves())}
            for name in sorted(names & known):
                raise TypeError(
                    f"{cls.__name__}: two components are called {name!r}: expected a name of its own for each, "
                    "the registers of banks too"
                )
            known |= names

    @classmethod
    def _arrange(cls, slots: Iterable[Slot], leaves_of: Mapping[str, tuple[Leaf, ...]]) -> None:
        cls.layout, cls.leaves_of = tuple(slots), leaves_of
        cls.leaves = tuple(itertools.chain.from_iterable(leaves_of.values()))
        cls._leaf_named = {leaf.name: leaf for leaf in cls.leaves}

    @classmethod
    def with_roles(cls, role: Callable[[str, Role], Role]) -> type[Self]:
        """The same components with other roles, as a technique may see them.

        Args:
            role: the new role of a leaf or a memory, from its name and its own role.
        """

        def seen(slot: Slot) -> Slot:
            whole = slot.address or [leaf.name for leaf in cls.leaves_of[slot.name]] == [slot.name]
            return attrs.evolve(slot, role=role(slot.name, slot.role)) if whole else slot

        made: type[Self] = type(cls.__name__, (cls,), {"__doc__": cls.__doc__})
        made._arrange(
            map(seen, cls.layout),
            {
                name: tuple(attrs.evolve(leaf, role=role(leaf.name, leaf.role)) for leaf in leaves)
                for name, leaves in cls.leaves_of.items()
            },
        )
        return made

    @classmethod
    def _new(cls, words: dict[str, Word], memories: dict[str, Memory]) -> Self:
        self = cls.__new__(cls)
        self._words, self._memories = words, memories
        self._undefined, self._left_open = _zero, None
        return self

    @classmethod
    def reset(cls, **changes: int) -> Self:
        """The plain reset state, all memory zero, with leaves or components changed by name.

        A dot in a name is written as two underscores: `reset(cr4__umip=1)`.
        """
        words = {s.name: Word(s.width, s.reset) for s in cls.layout if not s.address}
        memories = {s.name: Memory(s.address, s.width) for s in cls.layout if s.address}
        return cls._new(words, memories).with_changes({k.replace("__", "."): v for k, v in changes.items()})

    @classmethod
    def symbolic(cls, suffix: str = "") -> Self:
        """The state that may be anything: each component a symbol of its own name."""
        words = {s.name: symbol(s.name + suffix, s.width) for s in cls.layout if not s.address}
        memories = {s.name: Memory(s.address, s.width, s.name + suffix) for s in cls.layout if s.address}
        state = cls._new(words, memories)
        state._undefined = _fresh
        return state

    @classmethod
    def leaf(cls, name: str) -> Leaf:
        """The leaf called `name`; KeyError with near matches otherwise."""
        found = cls._leaf_named.get(name)
        if found is not None:
            return found
        import difflib

        near = difflib.get_close_matches(name, [leaf.name for leaf in cls.leaves], 3)
        raise KeyError(f"no component {name!r}" + (f"; near: {', '.join(near)}" if near else ""))

    def copy(self) -> Self:
        """An independent copy; words and memories are immutable and shared."""
        twin = type(self)._new(dict(self._words), dict(self._memories))
        twin._undefined, twin._left_open = self._undefined, self._left_open
        return twin

    def with_changes(self, changes: Mapping[str, Word | int]) -> Self:
        """A copy with leaves or whole components set, by name."""
        twin = self.copy()
        for name, new in changes.items():
            twin[name] = new
        return twin

    def with_contents(self, names: Mapping[str, str]) -> Self:
        """A copy in which each given memory holds unknown contents of the given name."""
        twin = self.copy()
        for memory_name, contents in names.items():
            old = twin._memories[memory_name]
            twin._memories[memory_name] = Memory(old.address_width, old.cell_width, contents)
        return twin

    def __getitem__(self, name: str) -> Word:
        """A leaf or a component by name."""
        found = self._words.get(name)
        if found is not None:
            return found
        leaf = self.leaf(name)
        return self._words[leaf.component][leaf.high : leaf.low]

    def __setitem__(self, name: str, new: Word | int) -> None:
        old = self._words.get(name)
        if old is not None:
            fresh = new if isinstance(new, Word) else Word(old.width, new)
            self.write_choice((name,), None, fresh)
        else:
            leaf = self.leaf(name)
            self._words[leaf.component] = self._words[leaf.component].replace(leaf.high, leaf.low, new)

    def read_choice(self, names: tuple[str, ...], index: Word | None) -> Word:
        """The component called `names[index]`; an index past the end reads the last."""
        result = self._words[names[-1]]
        if index is not None:
            for number in range(len(names) - 2, -1, -1):
                result = ite(index == number, self._words[names[number]], result)
        return result

    def write_choice(self, names: tuple[str, ...], index: Word | None, new: Word) -> None:
        """Set the component called `names[index]`; an index past the end sets nothing."""
        for number, name in enumerate(names):
            old = self._words[name]
            if old.width != new.width:
                raise TypeError(f"{name} has {old.width} bits, not {new.width}")
            self._words[name] = new if index is None else ite(index == number, new, old)

    def with_undefined(self, values: Mapping[str, int], asked: dict[str, int] | None = None) -> Self:
        """A copy that answers `undefined` with these numbers, by symbol name, and 0 otherwise.

        Args:
            values: the numbers.
            asked: is told the width of every result that is asked for, by symbol name.
        """
        twin = self.copy()

        def answer(what: str, width: int) -> Word:
            name = UNDEFINED + what
            if asked is not None:
                asked[name] = width
            return Word(width, values.get(name, 0))

        twin._undefined = answer
        return twin

    def with_undefined_again(self, suffix: str) -> Self:
        """A copy that answers `undefined` as this one does by the name with the suffix."""
        twin, known = self.copy(), self._undefined
        twin._undefined = lambda what, width: known(what + suffix, width)
        return twin

    def undefined(self, what: str, width: int) -> Word:
        """A result the manual leaves undefined: any value, but the same in two compared runs.

        Raises:
            DeclarationError: in a step of a machine that does not declare it.
        """
        if self._left_open is not None:
            assert_declared(what, self._left_open)
        return self._undefined(what, width)

    @property
    def leaves_undefined(self) -> bool:
        """Whether nobody chose undefined results, which are 0 then: a state of numbers as it was made."""
        return self._undefined is _zero

    def words(self) -> Mapping[str, Word]:
        """Every word component by name, in declared order."""
        return self._words

    def memories(self) -> Mapping[str, Memory]:
        """Every memory by name."""
        return self._memories

    def substituted(
        self, variables: Mapping[str, Word], memories: Mapping[str, Callable[[Word], Word]]
    ) -> Self:
        """The state with symbols replaced; `memories` maps a named contents to a view of it."""
        replace = substitution(variables, memories)
        return self.replaced(replace, memories)

    def replaced(
        self,
        replace: terms.Substitution,
        memories: Mapping[str, Callable[[Word], Word]],
        kept: tuple[Self, Self] | None = None,
    ) -> Self:
        """As `substituted`, with a substitution that is shared with other states and conditions.

        Args:
            kept: a state and what becomes of it; what this state still has of the one it takes from the other.
        """
        old, new = (self._new({}, {}), self) if kept is None else kept
        words, stored = dict(new._words), dict(new._memories)
        for name, word in self._words.items():
            if word is not old._words.get(name):
                words[name] = word if word.concrete else Word(word.width, replace(word.term))
        for name, content in self._memories.items():
            if content is not old._memories.get(name):
                stored[name] = content.substituted(replace, memories)
        twin = type(self)._new(words, stored)
        twin._undefined = self._undefined
        return twin

    def __repr__(self) -> str:
        changed = [
            f"{leaf.name}={self[leaf.name].value!r}"
            for leaf in self.leaves
            if self[leaf.name].value != leaf.reset
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


def _zero(what: str, width: int) -> Word:
    return Word(width, 0)


def _fresh(what: str, width: int) -> Word:
    return symbol(UNDEFINED + what, width)


def substitution(
    variables: Mapping[str, Word], memories: Mapping[str, Callable[[Word], Word]]
) -> terms.Substitution:
    """Replace variables and memory contents in any number of terms."""

    def as_term(view: Callable[[Word], Word]) -> Callable[[terms.Term], terms.Term]:
        return lambda address: view(Word(address.width, address)).term

    return terms.Substitution(
        {name: new.term for name, new in variables.items()},
        {name: as_term(view) for name, view in memories.items()},
    )


def leaves_with(state: type[State], roles: Iterable[Role]) -> tuple[Leaf, ...]:
    """The leaves of a state whose role is one of `roles`, in declared order."""
    wanted = frozenset(roles)
    return tuple(leaf for leaf in state.leaves if leaf.role in wanted)
