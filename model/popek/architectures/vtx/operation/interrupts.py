"""Interrupts for a guest under VT-x: what happens between two of its instructions, step by step.

A `VmxWorld` is what decides the delivery of interrupts and NMIs at an instruction boundary of the guest: the
guest's side (RFLAGS.IF, blocking by STI and MOV SS, activity state, virtual-NMI blocking), the VMCS's two window
controls, and the VMM's bookkeeping.  `boundary` is one step: an event that the processor puts before the next
instruction (SDM vol. 3C, "Other Causes of VM Exits" and "Changes to Instruction Behavior in VMX Non-Root
Operation"; vol. 3A, "Priority Among Concurrent Events"), or else that instruction.  A VM exit, the VMM's work and
the VM entry with what it injects (vol. 3C, "Event Injection") are one step: the guest sees no more of it.

The guest's instructions are the machine's own (`after_instruction` translates).  The same functions run on
numbers, for traces, and on symbols, for the induction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from popek.kernel.words import FALSE, TRUE, Word, concat, ite, symbol

from .state import VmxIa32

NMI_VECTOR: Final = 2
VALID, NMI_TYPE = 1 << 31, 2 << 8

CONTROLS: Final[Mapping[str, str]] = {
    "external-interrupt-exiting": "an external interrupt leaves the guest, whatever RFLAGS.IF is",
    "interrupt-window-exiting": "the guest leaves as soon as it can take an interrupt",
    "nmi-exiting": "an NMI leaves the guest",
    "virtual-nmis": "the processor keeps track of the guest's blocking by NMI",
    "nmi-window-exiting": "the guest leaves as soon as it can take an NMI",
}
"""The VM-execution controls that the promises rest on, with what each does."""

DUTIES: Final[Mapping[str, str]] = {
    "look-at-if": "the VMM injects an interrupt only with RFLAGS.IF = 1",
    "look-at-shadow": "the VMM injects nothing while STI or MOV SS block it",
    "look-at-nmi-blocking": "the VMM injects no NMI while NMIs are blocked",
    "inject-at-windows": "the VMM injects what waits when the guest leaves at a window",
}
"""What the VMM has to do beside setting controls."""

_NEEDS: Final = {
    "virtual-nmis": ("nmi-exiting",),
    "nmi-window-exiting": ("virtual-nmis", "nmi-exiting"),
}  # SDM vol. 3C, "Checks on VMX Controls"


@attrs.frozen
class VmxInterruptSetup:
    """The controls and duties that are in place.

    Attributes:
        dropped: names of `CONTROLS` and `DUTIES` that are not.
        sti_blocks_nmi_window: whether the processor holds off NMI-window exits while STI blocks events; the
            manual allows both.
    """

    dropped: frozenset[str] = frozenset()
    sti_blocks_nmi_window: bool = True

    def has(self, name: str) -> Word:
        """Whether a control can be set or a duty is done (width 1); a control needs those it presupposes."""
        names = (name, *_NEEDS.get(name, ()))
        return FALSE if self.dropped.intersection(names) else TRUE


@attrs.frozen(eq=False)
class VmxWorld:
    """What decides the delivery of interrupts at an instruction boundary; words of 1 bit but for the vector.

    Attributes:
        enabled: the guest's RFLAGS.IF.
        sti, mov_ss: blocking by STI and by MOV SS.
        halted: the activity state is HLT.
        nmi_blocked: bit 3 of the interruptibility state.
        in_nmi: the guest took an NMI and has not executed IRET since: what blocking by NMI means to the guest.
        waiting, vector: the VMM holds an interrupt for the guest, and its vector (8 bits).
        nmi_waiting: the VMM holds an NMI for the guest.
        window, nmi_window: interrupt-window exiting and NMI-window exiting.
    """

    enabled: Word
    sti: Word
    mov_ss: Word
    halted: Word
    nmi_blocked: Word
    in_nmi: Word
    waiting: Word
    vector: Word
    nmi_waiting: Word
    window: Word
    nmi_window: Word

    @property
    def open(self) -> Word:
        """The guest takes interrupts here."""
        return self.enabled & ~self.sti & ~self.mov_ss

    @property
    def nmi_open(self) -> Word:
        """The guest takes NMIs here, as it sees it."""
        return ~self.in_nmi & ~self.sti & ~self.mov_ss

    def key(self) -> tuple[int, ...]:
        """A world of numbers as a plain tuple."""
        return tuple(int(getattr(self, field.name)) for field in attrs.fields(VmxWorld))


@attrs.frozen(eq=False)
class Arrivals:
    """What comes from outside in a step; words of 1 bit but for the vectors (8 bits).

    Attributes:
        interrupt: an external interrupt arrives; `for_guest`: the VMM passes it on, with `vector`.
        nmi: an NMI arrives; `nmi_for_guest`: the VMM passes it on.
        more, next_vector: another interrupt waits behind the one that is injected.
    """

    interrupt: Word
    for_guest: Word
    vector: Word
    nmi: Word
    nmi_for_guest: Word
    more: Word = attrs.field(factory=lambda: FALSE)
    next_vector: Word = attrs.field(factory=lambda: Word(8, 0))


@attrs.frozen(eq=False)
class EntryWithEvent:
    """A VM entry: the world that the VMCS describes, and what is injected (32 bits, 0: nothing)."""

    world: VmxWorld
    information: Word


@attrs.frozen(eq=False)
class VmxBoundary:
    """What a boundary does; conditions of 1 bit.

    Attributes:
        after: the next world, unless the guest goes on with its instruction.
        entry: the VM entry, where the guest left.
        left: the guest left.
        given, nmi_given: it was given an interrupt, an NMI.
        injected: by the VMM's injection; otherwise the processor delivered it past the VMM.
        runs: nothing comes first: the next instruction, or more waiting if it is halted.
    """

    after: VmxWorld
    entry: EntryWithEvent
    left: Word
    given: Word
    nmi_given: Word
    injected: Word
    runs: Word


def start() -> VmxWorld:
    """A guest before its first instruction, as after reset."""
    numbers = {f.name: Word(8 if f.name == "vector" else 1, 0) for f in attrs.fields(VmxWorld)}
    return VmxWorld(**numbers)


def anywhere() -> VmxWorld:
    """A world that may be any."""
    return VmxWorld(
        **{f.name: symbol(f"world {f.name}", 8 if f.name == "vector" else 1) for f in attrs.fields(VmxWorld)}
    )


def anything() -> Arrivals:
    """Whatever may come."""
    return Arrivals(
        **{
            f.name: symbol(f"arrival {f.name}", 8 if "vector" in f.name else 1)
            for f in attrs.fields(Arrivals)
        }
    )


def quiet() -> Arrivals:
    """Nothing comes."""
    return Arrivals(FALSE, FALSE, Word(8, 0), FALSE, FALSE)


# -- the VMM and the processor ------------------------------------------------------------------------


def entry(
    world: VmxWorld, arrivals: Arrivals, setup: VmxInterruptSetup, at_window: Word = FALSE
) -> EntryWithEvent:
    """The VMM's work before a VM entry: inject what can be injected, ask for windows for what cannot."""
    passes = ~(world.sti | world.mov_ss) | ~setup.has("look-at-shadow")
    idle = at_window & ~setup.has("inject-at-windows")
    unblocked = ~world.nmi_blocked | ~setup.has("look-at-nmi-blocking")
    nmi = world.nmi_waiting & passes & unblocked & ~idle
    enabled = world.enabled | ~setup.has("look-at-if")
    interrupt = ~nmi & world.waiting & passes & enabled & ~idle
    external = concat(Word(24, VALID >> 8), world.vector)
    information = ite(nmi, Word(32, VALID | NMI_TYPE | NMI_VECTOR), ite(interrupt, external, Word(32, 0)))
    waiting = ite(interrupt, arrivals.more, world.waiting)
    nmi_waiting = world.nmi_waiting & ~nmi
    prepared = attrs.evolve(
        world,
        waiting=waiting,
        vector=ite(interrupt & arrivals.more, arrivals.next_vector, world.vector),
        nmi_waiting=nmi_waiting,
        window=waiting & setup.has("interrupt-window-exiting"),
        nmi_window=nmi_waiting & setup.has("nmi-window-exiting"),
    )
    return EntryWithEvent(prepared, information)


def delivered(world: VmxWorld, interrupt: Word, nmi: Word) -> VmxWorld:
    """The guest is in its handler, entered through an interrupt gate, if one of the two was delivered."""
    taken = interrupt | nmi
    return attrs.evolve(
        world,
        enabled=world.enabled & ~taken,
        sti=world.sti & ~taken,
        mov_ss=world.mov_ss & ~taken,
        halted=world.halted & ~taken,
        nmi_blocked=world.nmi_blocked | nmi,
        in_nmi=world.in_nmi | nmi,
    )


def boundary(world: VmxWorld, arrivals: Arrivals, setup: VmxInterruptSetup) -> VmxBoundary:
    """What comes before the guest's next instruction: NMI, NMI window, interrupt window, interrupt."""
    blocked = world.sti & (TRUE if setup.sti_blocks_nmi_window else FALSE)
    nmi_exit = arrivals.nmi & setup.has("nmi-exiting")
    nmi_past = arrivals.nmi & ~setup.has("nmi-exiting") & ~world.nmi_blocked & ~world.mov_ss & ~world.sti
    other = ~nmi_exit & ~nmi_past
    nmi_window = other & world.nmi_window & ~world.nmi_blocked & ~world.mov_ss & ~blocked
    other = other & ~nmi_window
    window = other & world.window & world.open
    other = other & ~window
    interrupt_exit = other & arrivals.interrupt & setup.has("external-interrupt-exiting")
    past = other & arrivals.interrupt & ~setup.has("external-interrupt-exiting") & world.open
    left = nmi_exit | nmi_window | window | interrupt_exit
    queued = interrupt_exit & arrivals.for_guest
    known = attrs.evolve(
        world,
        nmi_waiting=world.nmi_waiting | (nmi_exit & arrivals.nmi_for_guest),
        waiting=world.waiting | queued,
        vector=ite(
            queued & (~world.waiting | (arrivals.vector > world.vector)), arrivals.vector, world.vector
        ),
    )
    made = entry(known, arrivals, setup, nmi_window | window)
    valid = left & (made.information[31] == 1)
    nmi = (valid & (made.information[10:8] == 2)) | nmi_past
    interrupt = (valid & (made.information[10:8] == 0)) | past
    after = delivered(_either(left, made.world, world), interrupt, nmi)
    return VmxBoundary(after, made, left, interrupt, nmi, valid, ~left & ~nmi_past & ~past)


def _either(condition: Word, a: VmxWorld, b: VmxWorld) -> VmxWorld:
    names = [field.name for field in attrs.fields(VmxWorld)]
    return VmxWorld(**{name: ite(condition, getattr(a, name), getattr(b, name)) for name in names})


# -- the guest's instructions -------------------------------------------------------------------------


def guest_side(cpu: VmxIa32, world: VmxWorld) -> VmxWorld:
    """The guest's side of a world from a processor's state; the rest as it was."""
    return attrs.evolve(
        world,
        enabled=cpu.eflags.if_,
        sti=cpu.shadow.sti,
        mov_ss=cpu.shadow.mov_ss,
        halted=cpu.halted,
        nmi_blocked=cpu.nmi_blocked,
    )


def after_instruction(before: VmxWorld, cpu: VmxIa32, *, returns: bool) -> VmxWorld:
    """The world after an instruction of the guest that left the processor like this; `returns`: it is IRET."""
    return attrs.evolve(guest_side(cpu, before), in_nmi=FALSE if returns else before.in_nmi)


def emulated(world: VmxWorld) -> VmxWorld:
    """The VMM has executed an instruction for the guest, or given it an exception: events are no longer held off."""
    return attrs.evolve(world, sti=FALSE, mov_ss=FALSE, halted=FALSE)


# -- what is claimed ----------------------------------------------------------------------------------


def invariant(world: VmxWorld, setup: VmxInterruptSetup) -> Word:
    """What holds at every instruction boundary (width 1).

    The first three rows are facts of the processor, the others join its state to the VMM's bookkeeping.  Without
    virtual NMIs the processor does not tell when the guest's handler of an NMI has returned.
    """
    lost = setup.has("nmi-exiting") & ~setup.has("virtual-nmis")
    rows = (
        ~world.sti | world.enabled,
        ~(world.sti & world.mov_ss),
        ~world.halted | ~(world.sti | world.mov_ss),
        ~world.in_nmi | world.nmi_blocked,
        ~world.nmi_blocked | world.in_nmi | lost,
        world.window == world.waiting & setup.has("interrupt-window-exiting"),
        world.nmi_window == world.nmi_waiting & setup.has("nmi-window-exiting"),
        ~world.waiting | setup.has("external-interrupt-exiting"),
        ~world.nmi_waiting | setup.has("nmi-exiting"),
    )
    total = rows[0]
    for row in rows[1:]:
        total = total & row
    return total


PROMISES: Final[Mapping[str, str]] = {
    "masked": "a guest with IF = 0 or in an interrupt shadow is given no interrupt, one in its NMI handler no NMI",
    "owned": "the guest is given nothing but what the VMM injects",
    "host-control": "an interrupt or NMI that arrives takes the guest away in the same step",
    "first-window": "what waits is given at the first boundary where the guest takes it, before its next instruction",
    "no-idle-exit": "an exit at a window gives the guest something",
}
"""The promises of a step, by name; that no entry fails is asked of the entry checks themselves."""


def promises(world: VmxWorld, arrivals: Arrivals, step: VmxBoundary) -> Mapping[str, Word]:
    """Whether a step keeps each promise (width 1)."""
    taken = step.given | step.nmi_given
    window_exit = step.left & ~arrivals.interrupt & ~arrivals.nmi
    return {
        "masked": (~step.given | world.open) & (~step.nmi_given | (~world.in_nmi & ~world.mov_ss)),
        "owned": ~taken | step.injected,
        "host-control": ~(arrivals.interrupt | arrivals.nmi) | step.left,
        "first-window": (~(world.waiting & world.open) | taken)
        & (~(world.nmi_waiting & world.nmi_open) | step.nmi_given),
        "no-idle-exit": ~window_exit | taken,
    }


def entry_fields(made: EntryWithEvent, setup: VmxInterruptSetup, known: Mapping[str, int]) -> dict[str, Word]:
    """The VMCS fields that a VM entry rests on here, by id (64 bits each); the rest is `known`."""
    world = made.world
    wide = {name: Word(64, known[name]) for name in ("GUEST_RFLAGS", "PIN_CONTROLS", "PRIMARY_PROC_CONTROLS")}
    interruptibility = concat(world.nmi_blocked, FALSE, world.mov_ss, world.sti).zero_extend(64)
    pin = wide["PIN_CONTROLS"]
    for name, place in (("external-interrupt-exiting", 0), ("nmi-exiting", 3), ("virtual-nmis", 5)):
        pin = pin.replace(place, place, setup.has(name))
    primary = wide["PRIMARY_PROC_CONTROLS"].replace(2, 2, world.window).replace(22, 22, world.nmi_window)
    return {
        "GUEST_RFLAGS": wide["GUEST_RFLAGS"].replace(9, 9, world.enabled),
        "GUEST_INTERRUPTIBILITY": interruptibility,
        "GUEST_ACTIVITY_STATE": world.halted.zero_extend(64),
        "ENTRY_INTR_INFO": made.information.zero_extend(64),
        "PIN_CONTROLS": pin,
        "PRIMARY_PROC_CONTROLS": primary,
    }
