"""What is wrong with a machine as it is declared, told before anything is asked of it: one line, with its place.

A model with a typo would get a verdict otherwise: of a name that no component has, a leaf that nobody owns, a map that
returns nothing.
"""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .outcome import DeclarationError, SemanticsError
from .state import Group, Register, Role, State
from .words import Word, symbol

if TYPE_CHECKING:
    from .machine import Machine
    from .technique import Technique

S = TypeVar("S", bound=State)

# What can go wrong in a semantics that is not right; an exploration stops by other exceptions.
MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RecursionError,
    TypeError,
    ValueError,
)

_OURS = str(Path(__file__).parents[1])


def place(error: BaseException) -> str:
    """The file and line of what a user wrote that an error came from, `toy.py:12`; empty where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if not f.filename.startswith(_OURS) and Path(f.filename).suffix == ".py"]
    semantics = [f for f in frames if f.filename.startswith(f"{_OURS}/architectures")]
    for frame in reversed(outside or semantics):
        return f"{frame.filename}:{frame.lineno}"
    return ""


def defined_at(function: object) -> str:
    """The file and line where a user wrote a function; empty where that is not known, or the function is popek's."""
    code = getattr(function, "__code__", None)
    if code is None or code.co_filename.startswith(_OURS) or not code.co_filename.endswith(".py"):
        return ""
    return f"{code.co_filename}:{code.co_firstlineno}"


def in_semantics(error: BaseException, machine: str, form: str) -> SemanticsError:
    """What a semantics did wrong, as one error of ours that can go from one process to another."""
    where = place(error)
    return SemanticsError(f"{where + ': ' if where else ''}{machine}, {form}: {described(error)}")


def described(error: BaseException) -> str:
    """What is wrong, in words; with near matches where a name is not known."""
    found = _NO_ATTRIBUTE.fullmatch(str(error)) if isinstance(error, AttributeError) else None
    for kind in _declared_kinds() if found else ():
        if found is not None and kind.__name__ == found["kind"]:
            part = "field" if issubclass(kind, Register) else "component"
            known = [name for name in dir(kind) if not name.startswith("_") and not hasattr(State, name)]
            return f"{kind.__name__} has no {part} {found['name']!r}{near(found['name'], known)}"
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return text if isinstance(error, DeclarationError) else f"{type(error).__name__}: {text}"


# The exception itself does not know the object where an attribute is set.
_NO_ATTRIBUTE = re.compile(r"'(?P<kind>\w+)' object has no attribute '(?P<name>\w+)'")


def _declared_kinds() -> Iterator[type]:
    """The classes of states, registers and groups, the newest first."""
    pending: list[type] = [State, Register, Group]
    while pending:
        kinds: list[type] = pending.pop().__subclasses__()
        yield from reversed(kinds)
        pending += kinds


def near(name: str, known: Iterable[str]) -> str:
    """`; near: timer`, or the names there are where nothing is near."""
    known = list(known)
    found = difflib.get_close_matches(name, known, 3)
    return f"; near: {', '.join(found)}" if found else f"; there are {', '.join(known[:12]) or 'none'}"


def assert_declared(machine: Machine[S], techniques: Iterable[Technique[S]] | None = None) -> None:
    """What can be seen to be wrong without a question to a solver.

    Args:
        techniques: those to look at; the machine's own by default.

    Raises:
        DeclarationError: the first thing that is wrong.
    """
    for wrong in mistakes(machine, techniques):
        raise DeclarationError(wrong)


def mistakes(machine: Machine[S], techniques: Iterable[Technique[S]] | None = None) -> Iterator[str]:
    """Everything that can be seen to be wrong, a line each."""
    if not (isinstance(machine.state, type) and issubclass(machine.state, State)):
        yield f"{machine.name}: state={machine.state!r}: expected a class of states, such as one derived from State"
        return
    if not machine.instructions:
        yield f"{machine.name}: no instruction is declared, so there is nothing to ask"
    known = _names(machine.state)
    state = machine.state.symbolic()
    yield from _condition(machine.name, "supervisor", lambda: machine.supervisor(state))
    yield from _condition(machine.name, "user", lambda: machine.user(state))
    yield from _condition(machine.name, "invariant", lambda: machine.invariant(state))
    yield from _listed(machine.name, "interrupt_masks", machine.interrupt_masks, known)
    interrupts = [one.name for one in machine.interruptions]
    for name in dict.fromkeys(interrupts):
        if (times := interrupts.count(name)) > 1:
            yield f"{machine.name}: {times} interrupts are called {name!r}: expected names of their own"
    yield from _settings(machine, known)
    yield from _beside_instructions(machine)
    for technique in machine.techniques.values() if techniques is None else techniques:
        yield from _technique(machine, technique, known)


def _names(state: type[State]) -> list[str]:
    """Leaves, components, memories, and the groups they are in."""
    leaves = [leaf.name for leaf in state.leaves]
    return list(dict.fromkeys([*leaves, *(slot.name for slot in state.layout)]))


def _listed(whose: str, what: str, names: Any, known: Sequence[str]) -> Iterator[str]:
    if isinstance(names, str):
        yield f'{whose}: {what}={names!r} is a string: expected a tuple of names, such as ("{names}",)'
        return
    for name in names:
        if name not in known:
            yield f"{whose}: {what} names {name!r}, which is no leaf and no component{near(str(name), known)}"


def _whole(state: type[State], whose: str, what: str, names: Iterable[str]) -> Iterator[str]:
    """Components of several leaves where leaves are expected: each part may belong to another."""
    for name in names:
        parts = [leaf.name for leaf in state.leaves_of.get(name, ())]
        if parts and parts != [name]:
            more = ", ..." if len(parts) > 6 else ""
            yield (
                f"{whose}: {what} names {name!r}, a component of {len(parts)} leaves: "
                f"expected the leaves that are meant, of {', '.join(parts[:6])}{more}"
            )


def _condition(whose: str, what: str, made: Callable[[], Any]) -> Iterator[str]:
    value, wrong = _called(whose, what, made)
    if wrong:
        yield wrong
    elif not isinstance(value, Word) or value.width != 1:
        got = f"a word of {value.width} bits" if isinstance(value, Word) else f"{value!r}"
        yield f"{whose}: {what} gives {got}: expected a condition, a word of one bit, such as state.mode == 1"


def _called(whose: str, what: str, made: Callable[[], Any]) -> tuple[Any, str]:
    try:
        return made(), ""
    except MISTAKES as error:
        where = place(error)
        return None, f"{where + ': ' if where else ''}{whose}: {what}: {described(error)}"


def _settings(machine: Machine[S], known: Sequence[str]) -> Iterator[str]:
    names = [setting.name for setting in machine.settings]
    for setting in machine.settings:
        whose = f"{machine.name}: setting {setting.name}"
        if names.count(setting.name) > 1:
            yield f"{whose} is declared {names.count(setting.name)} times"
        if not setting.values:
            yield f"{whose} has no values"
        elif setting.default is not None and setting.default not in setting.values:
            yield f"{whose}: default={setting.default} is none of its values {', '.join(map(str, setting.values[:8]))}"
        if setting.leaf is not None:
            yield from _listed(whose, "leaf", (setting.leaf,), known)
        yield from _listed(whose, "concerns", setting.concerns, known)


def _beside_instructions(machine: Machine[S]) -> Iterator[str]:
    """What the machine does besides instructions, as far as it can be called without an exploration."""
    state = machine.state.symbolic()
    relocate, width = machine.relocate, machine.relocation_width
    if relocate is not None and width < 1:
        yield f"{machine.name}: relocate without relocation_width: expected the bits of an offset"
    elif relocate is not None:
        moved, wrong = _called(machine.name, "relocate", lambda: relocate(state, symbol("relocation", width)))
        if wrong:
            yield wrong
        elif not isinstance(moved, machine.state):
            yield (
                f"{machine.name}: relocate(state, offset) gives {moved!r}: "
                f"expected a state of {machine.state.__name__}"
            )
    for one in machine.interruptions:
        whose = f"{machine.name}: interruption {one.name}"
        given = {name: symbol(name, bits) for name, bits in one.given.items()}
        yield from _condition(whose, "takes", partial(one.takes, state, given))
        yield from _condition(whose, "may", partial(one.may, given))


def _technique(machine: Machine[S], technique: Technique[S], known: Sequence[str]) -> Iterator[str]:
    whose = f"{machine.name} under {technique.name}"
    lists = {
        "owned": technique.owned,
        "replaced": technique.replaced,
        "shadowed": technique.shadowed,
        "delivered": technique.delivered,
        "guests_own": technique.guests_own,
        "uncompared": technique.uncompared or (),
    }
    wrong = [line for what, names in lists.items() for line in _listed(whose, what, names, known)]
    if not wrong:
        wrong = [line for what, names in lists.items() for line in _whole(machine.state, whose, what, names)]
    wrong += [
        f"{whose}: shadowed_when names {name!r}, which is not shadowed{near(str(name), technique.shadowed)}"
        for name in technique.shadowed_when
        if name not in technique.shadowed
    ]
    settings = [setting.name for setting in machine.settings]
    wrong += [
        f"{whose}: {what} names {name!r}, which is no setting{near(str(name), settings)}"
        for what, names in (
            ("guest_settings", technique.guest_settings),
            ("hardware_settings", technique.hardware_settings),
        )
        for name in names
        if name not in settings
    ]
    yield from wrong
    if wrong:
        return
    guest, private = machine.state.symbolic(), machine.state.symbolic("@vmm")
    yield from _condition(whose, "deprivileged", lambda: technique.deprivileged(guest))
    yield from _condition(whose, "guest", lambda: technique.guest(guest))
    yield from _condition(whose, "private", lambda: technique.private(guest, private))
    yield from _condition(whose, "entries", lambda: technique.entries(guest, private))
    entered = technique.entered
    if entered is not None:
        yield from _condition(whose, "entered", lambda: entered(private, guest))
    for name, condition in technique.shadowed_when.items():
        yield from _condition(whose, f"shadowed_when[{name!r}]", partial(condition, guest))
    yield from _addresses(machine.state, whose, technique, guest, private)
    before = contents(guest, private)
    image, raised = _called(whose, "map", lambda: technique.map(guest, private))
    if raised:
        yield raised
    elif not isinstance(image, machine.state):
        yield f"{whose}: map(guest, private) gives {image!r}: expected a state of {machine.state.__name__}"
    elif before != contents(guest, private):
        yield f"{whose}: map(guest, private) changes the states it is given: begin with hardware = guest.copy()"


def _addresses(kind: type[State], whose: str, technique: Technique[S], guest: S, private: S) -> Iterator[str]:
    """What a technique says of addresses, of each memory of its width."""
    for slot in kind.layout:
        if not slot.address:
            continue
        of, at = f" of {slot.name}", symbol(f"address in {slot.name}", slot.address)
        if slot.role is Role.MEMORY:
            owns, shadows = technique.owns_address, technique.shadows_address
            if owns is not None:
                yield from _condition(whose, "owns_address" + of, partial(owns, guest, private, at))
            if shadows is not None:
                yield from _condition(whose, "shadows_address" + of, partial(shadows, guest, at))
            what, made = "guest_address", partial(technique.guest_address, private, at)
        else:
            mine = technique.owns_cell
            if mine is not None and slot.name in technique.owned:
                yield from _condition(whose, "owns_cell" + of, partial(mine, slot.name, at))
            yield from _condition(whose, "has_cell" + of, partial(technique.has_cell, guest, slot.name, at))
            what, made = "guest_cell", partial(technique.guest_cell, private, slot.name, at)
        found, wrong = _called(whose, what + of, made)
        if wrong:
            yield wrong
        elif not isinstance(found, Word) or found.width != slot.address:
            yield f"{whose}: {what}{of} gives {found!r}: expected an address of {slot.address} bits"


def contents(*states: State) -> list[int]:
    """Which words and memories the states hold: they are immutable."""
    return [id(part) for s in states for part in (*s.words().values(), *s.memories().values())]


def advice(machine: Machine[S]) -> Iterator[str]:
    """What may be meant, and is a mistake more often."""
    for technique in machine.techniques.values():
        both = [name for name in technique.guests_own if name in technique.owned]
        if both:
            yield (
                f"{machine.name} under {technique.name}: {', '.join(both)} in owned and in guests_own: a change of it "
                "breaks safety, and makes no instruction control-sensitive"
            )
        guest, private = machine.state.symbolic(), machine.state.symbolic("@vmm")
        image = technique.map(guest, private)
        taken = [
            leaf.name
            for leaf in image.leaves
            if image[leaf.name].term is private[leaf.name].term
            and all({leaf.name, leaf.component} & {*names} for names in (technique.owned, technique.shadowed))
            and not {leaf.name, leaf.component} & {*technique.replaced}
        ]
        if taken:
            more = f" and {len(taken) - 4} more" if len(taken) > 4 else ""
            yield (
                f"{machine.name} under {technique.name}: the map takes {', '.join(taken[:4])}{more} from `private`, "
                "and `replaced` does not name it: the resource-sensitive class does not ask whether it shows"
            )
