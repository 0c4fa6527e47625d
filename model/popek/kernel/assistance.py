"""Hardware assistance: a machine with a mode for guests, and controls that say what reaches the VMM from there.

An architecture declares an `Assistance`, and every question about it (requirements, exits, synthesis, judging, what
is gained, comparison) is asked of the declaration alone.  What a VMM owns is a *profile*: a value of the
architecture's own, made from names.  With it comes an `Arrangement`: the technique whose map puts a guest on the
hardware beside a VMM whose controls are left open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from popek.errors import PopekError

from .interrupts import Interrupts
from .machine import Machine, UnknownNameError, leaf_setting
from .outcome import Trap, Vector
from .state import Role, State
from .technique import Technique
from .words import Word, symbol

S = TypeVar("S", bound=State)

PRIVATE = "'"
"""Suffix of the symbols of what the VMM has."""


UNDEFINED = Vector("undefined instruction", 0)


class AssistanceError(PopekError):
    """A profile, a processor or a configuration that cannot be had; the message is one line."""


@attrs.frozen(eq=False)
class Control(Generic[S]):
    """Something of one bit that decides what an instruction does to a guest.

    Attributes:
        name: as the manual spells it.
        summary: what 1 does.
        leaf: the leaf of the VMM's state that holds it; empty where the arrangement makes something of it.
        chosen: the VMM chooses it; otherwise it is how things are, such as what pages a guest has.
        mentioned: where it is no leaf of its own: a run that does not mention this leaf does not depend on it.
        holds: where it is no leaf of its own: that it is 1 (width 1), given the hardware's state and the VMM's.
    """

    name: str
    summary: str = ""
    leaf: str = ""
    chosen: bool = True
    mentioned: str = ""
    holds: Callable[[S, S], Word] | None = None

    @property
    def symbol(self) -> Word:
        """The word that stands for it in questions (width 1)."""
        return symbol(f"{self.leaf}{PRIVATE}" if self.leaf else f"{self.name} covers{PRIVATE}", 1)

    @property
    def mark(self) -> str:
        """The symbol that is mentioned where a run depends on it."""
        return f"{self.mentioned}{PRIVATE}" if self.mentioned else str(self.symbol.term.data)


@attrs.frozen
class Ownable:
    """Something that a VMM can own.

    Attributes:
        summary: what it is.
        touches: components of the state; an instruction that mentions none of them cannot harm its owner.
        alone: whether a VMM can own it and leave everything else to the guest.
    """

    summary: str
    touches: tuple[str, ...] = ()
    alone: bool = True


@attrs.frozen(eq=False)
class Mode(Generic[S]):
    """An operating mode of the guest in which questions are asked.

    Attributes:
        title: for people; empty where it goes without saying.
        settings: of the machine, by name.
        fixed: controls without which there is no guest in this mode.
        refused: why there is none under a profile; empty where there is.
    """

    name: str
    title: str = ""
    settings: Mapping[str, int] = attrs.field(factory=dict)
    fixed: Mapping[str, int] = attrs.field(factory=dict)
    refused: Callable[[Any], str] = lambda profile: ""


@attrs.frozen(eq=False)
class Arrangement(Generic[S]):
    """A guest beside a VMM that owns what a profile says, the controls being symbols or numbers.

    Attributes:
        technique: map, ownership, targets of traps; what is assumed of guest and VMM is in `guest` and `private`.
        start: a state as the guest's own machine may have it.
        private: what the VMM has, as symbols.
        place: `place(guest, private)`: what the VMM has while this guest runs, for the map.
        lacks: mnemonics that the guest's own machine does not have.
        undefined: how it traps on them.
    """

    technique: Technique[S]
    private: S
    start: Callable[[S], S] = lambda state: state
    place: Callable[[S, S], S] = lambda guest, private: private
    lacks: frozenset[str] = frozenset()
    undefined: Vector = UNDEFINED

    def image(self, guest: S, private: S) -> S:
        """The hardware's state."""
        return self.technique.map(guest, self.place(guest, private))


@attrs.frozen
class Necessity:
    """Something that must reach the VMM, or be kept from the guest, whatever instruction runs.

    Attributes:
        name: what.
        control: what must be 1.
        why: one clause.
        owner: what the VMM cannot own without it; empty where it can own nothing safely.
    """

    name: str
    control: str
    why: str
    owner: str = ""


@attrs.frozen
class Missing:
    """A control that something needs and the processor does not have.

    Attributes:
        where: what says so, as the manual names it.
    """

    control: str
    needed_by: tuple[str, ...]
    where: str = ""


@attrs.frozen(eq=False)
class Processor:
    """A processor whose controls are to be set.

    Attributes:
        name: for people.
        controls: each control that is chosen as a condition (width 1) on what is to be found.
        rules: which combinations exist: conditions (width 1) by name.
        bits: of what is to be found; they are 0 where nothing asks for a 1.
        missing: where the processor says that it does not have a control; empty where it has it.
        lacks: what the guest has to be told it does not have, as `Assistance.profile` takes it.
        fields: how a choice is written down, registers and fields by name: given the profile, the controls, and
            the number that was found for a word.
        outcome: what the processor makes of these fields, where it is asked.
        layout: the width of a field, and its bits: high, low, name, what its value means; given the value.
    """

    name: str
    controls: Mapping[str, Word]
    rules: Mapping[str, Word] = attrs.field(factory=dict)
    bits: tuple[Word, ...] = ()
    missing: Callable[[str], str] = lambda control: ""
    lacks: frozenset[str] = frozenset()
    fields: Callable[[Any, Mapping[str, int], Callable[[Word], int]], Mapping[str, int]] = (
        lambda profile, setting, number: {}
    )
    outcome: Callable[[Mapping[str, int]], str] = lambda fields: ""
    layout: Callable[[str, int], tuple[int, Sequence[tuple[int, int, str, str]]]] = lambda field, value: (
        64,
        (),
    )


@attrs.frozen
class Rule:
    """A rule for a whole configuration, and whether it is kept.

    Attributes:
        kept: None where what is given does not decide it.
        consequence: of breaking it, in one word: `rejected`, `unsafe`, `undefined`, `unfaithful`, `vmm-defect`.
    """

    id: str
    text: str
    consequence: str
    why: str
    confidence: str
    source: str
    kept: bool | None


@attrs.frozen(eq=False)
class Settings:
    """How a VMM has set the controls.

    Attributes:
        controls: by name; one that is missing is not known.
        masks: registers that are as they are, whatever the VMM owns, by name.
        assume, lacks: what holds of the VMM besides, as `Assistance.profile` takes it.
        grants: what the VMM is known to leave to the guest.
        excludes: what a VMM with these controls cannot own, by name.
        owns: what it cannot but own.
        notes: what a reader should know.
        rules: for the whole configuration.
    """

    name: str
    source: str
    controls: Mapping[str, int]
    masks: Mapping[str, int] = attrs.field(factory=dict)
    assume: Mapping[str, int] = attrs.field(factory=dict)
    lacks: frozenset[str] = frozenset()
    grants: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    owns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()


@attrs.frozen(eq=False)
class Preset:
    """A choice of the controls, for a VMM that owns so much: the first processors, or what a book describes."""

    title: str
    profile: Any
    setting: Mapping[str, int]


@attrs.frozen(eq=False, slots=False)
class Assistance(Generic[S]):
    """One kind of hardware assistance.

    Attributes:
        name: as the command line spells it: the name of the technique.
        title: for people.
        machine: makes the machine on which questions about the controls are asked, every control left open.
        hardware: makes the machine on which the technique of this name is found, the controls being settings; by
            default it is made from this declaration (`hardware_of`).
        before: makes the machine without the assistance, and names the technique that the assistance replaces.
        controls: the controls, in declared order.
        ownable: what a VMM can own, by name.
        touches: components of what is the VMM's whatever it owns.
        everything: what it owns where nobody says.
        profile: makes a profile: what the VMM owns, what else holds, and what the guest is told that it lacks.
        arrange: `arrange(profile, controls, masks)`: the arrangement with these words for the controls, and
            with these registers as they are.
        options: what else can be said of a VMM (`--assume`), by name, with a summary.
        modes: the operating modes of the guest, by name; the first where nobody says.
        is_exit: which traps give the VMM control because the assistance says so.
        report: what an exit tells of its reason: a number and a name.
        governed: the forms that the assistance decides about; all by default.
        told_apart: mnemonics whose forms are all looked at, and not one for all.
        plain: what guest and VMM look like where nothing is said of them.
        zero: words of the VMM's state, and memories of bits, that are 0 where nothing asks for them to be 1.
        cover: controls that are registers or tables which cover what the VMM owns.
        necessities: what a profile asks for beyond single instructions.
        processor: makes a processor by name, or the one that is meant where nobody says; where there is none,
            every combination of the controls exists.
        circumstances: values of the controls that are not chosen.
        leaves_open: a form that no choice makes faithful and safe is left open and named; otherwise there is none.
        configurations: known configurations by name.
        read: reads configurations from the name and the content of a file.
        written: a configuration from fields, by name, as a user writes them.
        presets: choices of the controls to compare with, by name.
        problems: what forms stand for in the literature, by form, to sort a table's rows.
        interrupts: what delivers interrupts to the guest, where it is modelled.
        source: who describes it.
    """

    name: str
    title: str
    machine: Callable[[], Machine[S]]
    before: tuple[Callable[[], Machine[Any]], str]
    controls: tuple[Control[S], ...]
    ownable: Mapping[str, Ownable]
    everything: frozenset[str]
    profile: Callable[[frozenset[str], Mapping[str, int], Iterable[str]], Any]
    arrange: Callable[[Any, Mapping[str, Word], Mapping[str, int]], Arrangement[S]]
    hardware: Callable[[], Machine[Any]] | None = None
    touches: tuple[str, ...] = ()
    options: Mapping[str, str] = attrs.field(factory=dict)
    modes: Mapping[str, Mode[S]] = attrs.field(factory=lambda: {"": Mode("")})
    is_exit: Callable[[Trap[S]], bool] = lambda trap: True
    report: Callable[[Trap[S]], tuple[int, str]] = lambda trap: (trap.vector.number, trap.vector.name)
    governed: Callable[[], Sequence[str]] | None = None
    told_apart: Callable[[str], bool] = lambda mnemonic: False
    plain: Callable[[], tuple[S, S]] | None = None
    zero: tuple[str, ...] = ()
    cover: tuple[str, ...] = ()
    necessities: Callable[[Any], tuple[Necessity, ...]] = lambda profile: ()
    processor: Callable[[str | None], Processor] | None = None
    circumstances: Mapping[str, int] = attrs.field(factory=dict)
    leaves_open: bool = False
    configurations: Callable[[], Mapping[str, Settings]] = dict
    read: Callable[[str, bytes], list[Settings]] | None = None
    written: Callable[[Mapping[str, str]], Settings] | None = None
    presets: Callable[[], Mapping[str, Preset]] = dict
    problems: Mapping[str, str] = attrs.field(factory=dict)
    interrupts: Interrupts | None = None
    source: str = ""

    def control(self, name: str) -> Control[S]:
        """A control by name.

        Raises:
            UnknownNameError: with near matches.
        """
        for control in self.controls:
            if control.name == name:
                return control
        raise UnknownNameError(f"control of {self.name}", name, [c.name for c in self.controls])

    def owner(
        self,
        owns: Iterable[str] | None = None,
        *,
        assume: Mapping[str, int] | None = None,
        lacks: Iterable[str] = (),
    ) -> Any:
        """A profile from names of `ownable` and `options`.

        Args:
            owns: `everything` where nobody says.
            lacks: as `Processor.lacks`.

        Raises:
            AssistanceError: no such name, or nobody can own so.
        """
        names = self.everything if owns is None else frozenset(owns)
        for name in names:
            if name not in self.ownable:
                raise AssistanceError(f"nothing called {name!r} can be owned; {_near(name, self.ownable)}")
        for name in assume or {}:
            if name not in self.options:
                raise AssistanceError(f"nothing called {name!r} can be assumed; {_near(name, self.options)}")
        return self.profile(names, dict(assume or {}), lacks)


def _near(name: str, known: Mapping[str, Any]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, 2, 0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"


def hardware_of(assistance: Assistance[Any]) -> Machine[Any]:
    """The machine on which the technique of an assistance is found, its controls being settings.

    A VMM that owns the usual has every control at 1 where nobody says.  What it leaves to the guest is no resource.
    """
    if assistance.hardware is not None:
        return assistance.hardware()
    plain, profile = assistance.machine(), assistance.owner()
    leaves = {c.name: c.leaf for c in assistance.controls if c.leaf}

    def arrangement(private: State | None) -> Arrangement[Any]:
        words = {
            c.name: Word(1, 1) if c.name not in leaves else c.symbol if private is None else private[c.leaf]
            for c in assistance.controls
            if c.holds is None
        }
        return assistance.arrange(profile, words, {})

    declared = arrangement(None).technique
    owned = {*declared.owned, *leaves.values()}

    def role(name: str, own: Role) -> Role:
        yields = own in (Role.RESOURCE, Role.MODE, Role.TIME) and name not in owned
        return Role.GENERAL if yields else own

    technique = attrs.evolve(
        declared,
        name=assistance.name,
        title=assistance.title,
        map=lambda guest, private: arrangement(private).image(guest, private),
        owned=(*declared.owned, *leaves.values()),
        source=assistance.source,
    )
    settings = tuple(
        leaf_setting(c.name.upper(), c.leaf, 1, c.summary or c.name, 1) for c in assistance.controls if c.leaf
    )
    return attrs.evolve(
        plain,
        state=plain.state.with_roles(role),
        settings=(*plain.settings, *settings),
        techniques={assistance.name: technique},
        relocate=None,
    )
