"""Interrupts that the processor delivers to a guest by itself: virtual-interrupt delivery and posted interrupts.

A world is what decides delivery at an instruction boundary of the guest: RFLAGS.IF and the interrupt shadow, the
virtual-APIC page (VIRR, VISR, VTPR, VPPR), the guest interrupt status (RVI, SVI), whether a virtual interrupt is
recognized, and the posted-interrupt requests.  Beside it stands what the guest believes of its own local APIC: which
vectors are requested and which are in service (`wanted`, `serving`), as SDM vol. 3A, "Interrupt, Task, and Processor
Priority", has a local APIC treat them.  What the processor does is SDM vol. 3C, "APIC Virtualization and Virtual
Interrupts", 30.2 and 30.6.  A VM exit, the VMM's work and the VM entry are one step.  The guest takes its interrupts
through interrupt gates.

The same functions run on numbers, for traces, and on symbols, for the induction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from popek.kernel.words import FALSE, TRUE, Word, ite, symbol

from .state import VmxX64
from .virtual_apic import (
    VECTORS,
    VIRR,
    VISR,
    VPPR,
    VTPR,
    highest,
    only,
    outranks,
    processor_priority,
    register_set,
)

CONTROLS: Final[Mapping[str, str]] = {
    "external-interrupt-exiting": "an external interrupt leaves the guest, whatever RFLAGS.IF is",
    "use-tpr-shadow": "MOV CR8 works on the virtual-APIC page",
    "virtual-interrupt-delivery": "the processor delivers what VIRR requests, and virtualizes the end of interrupts",
    "process-posted-interrupts": "the notification vector moves posted requests to VIRR without an exit",
    "eoi-exit-bitmap": "the guest leaves at the end of an interrupt that the VMM must learn of",
}
"""The VM-execution controls that the promises rest on, with what each does."""

DUTIES: Final[Mapping[str, str]] = {
    "raise-rvi": "the VMM sets RVI to the highest vector of VIRR when it adds one",
    "keep-requests": "the VMM adds to VIRR, and does not write it anew",
    "tell-only-the-guest": "an interrupt of the host's own is not given to the guest",
    "leave-windows-closed": "interrupt-window exiting is 0, for it keeps virtual interrupts from being recognized",
}
"""What the VMM has to do beside setting controls."""

_NEEDS: Final = {
    "virtual-interrupt-delivery": ("use-tpr-shadow", "external-interrupt-exiting"),
    "process-posted-interrupts": (
        "virtual-interrupt-delivery", "use-tpr-shadow", "external-interrupt-exiting",
    ),
}  # fmt: skip  # SDM vol. 3C, "Checks on VMX Controls"


@attrs.frozen
class VirtualInterruptSetup:
    """The controls and duties that are in place: all but `dropped`."""

    dropped: frozenset[str] = frozenset()

    def has(self, name: str) -> Word:
        """Whether a control can be set or a duty is done (width 1); a control needs those it presupposes."""
        return FALSE if self.dropped.intersection((name, *_NEEDS.get(name, ()))) else TRUE


@attrs.frozen(eq=False)
class VirtualInterruptWorld:
    """What decides the delivery of virtual interrupts at an instruction boundary.

    Attributes:
        enabled: the guest's RFLAGS.IF (width 1).
        shadow: blocking by STI or MOV SS (width 1).
        requested, in_service: VIRR and VISR (256 bits).
        posted: requests in the posted-interrupt descriptor (256 bits).
        task_priority, priority: VTPR and VPPR (8 bits).
        rvi, svi: the guest interrupt status (8 bits each).
        recognized: a virtual interrupt is recognized as pending (width 1).
        wanted, serving: what the guest's own local APIC would have requested and in service (256 bits).
        told: vectors whose end the VMM must learn of: level-triggered ones (256 bits).
    """

    enabled: Word
    shadow: Word
    requested: Word
    in_service: Word
    posted: Word
    task_priority: Word
    priority: Word
    rvi: Word
    svi: Word
    recognized: Word
    wanted: Word
    serving: Word
    told: Word

    @property
    def open(self) -> Word:
        """The guest takes interrupts here (width 1)."""
        return self.enabled & ~self.shadow

    @property
    def takes(self) -> Word:
        """The guest's own machine would take an interrupt here (width 1)."""
        own = processor_priority(self.task_priority, highest(self.serving))
        return self.open & outranks(highest(self.wanted), own)


_WIDTHS: Final = {
    **dict.fromkeys(("enabled", "shadow", "recognized"), 1),
    **dict.fromkeys(("task_priority", "priority", "rvi", "svi"), 8),
}


@attrs.frozen(eq=False)
class VirtualArrivals:
    """What comes from outside in a step.

    Attributes:
        posts: a device posts a request and notifies the processor (width 1).
        interrupt: an external interrupt arrives (width 1); `for_guest`: the VMM passes it on.
        vector: of the request (8 bits).
    """

    posts: Word
    interrupt: Word
    for_guest: Word
    vector: Word


@attrs.frozen(eq=False)
class VirtualInterruptStep:
    """What a boundary does; conditions of 1 bit, and the vector that was given (8 bits).

    Attributes:
        after: the next world, unless the guest goes on with its instruction.
        left: the guest left.
        given: it was given an interrupt.
        runs: nothing comes first: the next instruction.
        past: an external interrupt went to the guest past the VMM.
    """

    after: VirtualInterruptWorld
    left: Word
    given: Word
    vector: Word
    runs: Word
    past: Word


def start() -> VirtualInterruptWorld:
    """A guest before its first instruction, as after reset; vector 45H is level-triggered."""
    words = {f.name: Word(_WIDTHS.get(f.name, VECTORS), 0) for f in attrs.fields(VirtualInterruptWorld)}
    return attrs.evolve(VirtualInterruptWorld(**words), told=only(Word(8, 0x45)))


def anywhere() -> VirtualInterruptWorld:
    """A world that may be any."""
    return VirtualInterruptWorld(
        **{
            f.name: symbol(f"world {f.name}", _WIDTHS.get(f.name, VECTORS))
            for f in attrs.fields(VirtualInterruptWorld)
        }
    )


def anything() -> VirtualArrivals:
    """Whatever may come."""
    return VirtualArrivals(
        **{
            f.name: symbol(f"arrival {f.name}", 8 if f.name == "vector" else 1)
            for f in attrs.fields(VirtualArrivals)
        }
    )


# -- the processor --------------------------------------------------------------------------------------


def evaluated(world: VirtualInterruptWorld, setup: VirtualInterruptSetup) -> VirtualInterruptWorld:
    """After PPR virtualization and the evaluation of pending virtual interrupts."""
    priority = processor_priority(world.task_priority, world.svi)
    recognized = outranks(world.rvi, priority) & setup.has("virtual-interrupt-delivery")
    return attrs.evolve(world, priority=priority, recognized=recognized & setup.has("leave-windows-closed"))


def delivered(world: VirtualInterruptWorld) -> VirtualInterruptWorld:
    """Virtual-interrupt delivery (30.2.2): the guest is in its handler."""
    vector = world.rvi
    requested = world.requested & ~only(vector)
    return attrs.evolve(
        world,
        in_service=world.in_service | only(vector),
        svi=vector,
        priority=vector & 0xF0,
        requested=requested,
        rvi=highest(requested),
        recognized=FALSE,
        enabled=FALSE,
    )


def posted(world: VirtualInterruptWorld, setup: VirtualInterruptSetup) -> VirtualInterruptWorld:
    """Posted-interrupt processing (30.6)."""
    top = highest(world.posted)
    merged = attrs.evolve(
        world,
        requested=world.requested | world.posted,
        posted=Word(VECTORS, 0),
        rvi=ite(top > world.rvi, top, world.rvi),
    )
    return evaluated(merged, setup)


def boundary(
    world: VirtualInterruptWorld, arrivals: VirtualArrivals, setup: VirtualInterruptSetup
) -> VirtualInterruptStep:
    """What comes before the guest's next instruction: a virtual interrupt, a notification, an interrupt."""
    given = world.recognized & world.open
    notified = ~given & arrivals.posts
    device = only(arrivals.vector) & ite(arrivals.vector >= 16, ~Word(VECTORS, 0), Word(VECTORS, 0))
    with_request = attrs.evolve(world, posted=world.posted | device, wanted=world.wanted | device)
    processes = notified & setup.has("process-posted-interrupts")
    interrupt = ~given & ~notified & arrivals.interrupt
    exits = setup.has("external-interrupt-exiting")
    left = (notified & ~processes & exits) | (interrupt & exits)
    past = (interrupt | (notified & ~processes)) & ~exits & world.open
    handled = _either(notified, with_request, world)
    passes = interrupt & (arrivals.for_guest | ~setup.has("tell-only-the-guest"))
    own = interrupt & arrivals.for_guest
    handled = attrs.evolve(handled, wanted=ite(own, handled.wanted | device, handled.wanted))
    handled = by_the_vmm(handled, ite(passes, device, Word(VECTORS, 0)), setup)
    after = _either(left, handled, _either(processes, posted(with_request, setup), world))
    unserved = _either(notified, with_request, world)
    after = _either(given, delivered(_accepted(world)), _either(left | processes, after, unserved))
    return VirtualInterruptStep(after, left, given, world.rvi, ~given & ~left & ~past, past)


def by_the_vmm(
    world: VirtualInterruptWorld, device: Word, setup: VirtualInterruptSetup
) -> VirtualInterruptWorld:
    """The VMM's work between a VM exit and a VM entry: what is posted, and a request of a device, go to VIRR."""
    kept = ite(setup.has("keep-requests"), world.requested, Word(VECTORS, 0))
    adds = (device | world.posted) != 0
    requested = ite(adds, kept | device | world.posted, world.requested)
    rvi = ite(adds & setup.has("raise-rvi"), highest(requested), world.rvi)
    return evaluated(attrs.evolve(world, requested=requested, rvi=rvi, posted=Word(VECTORS, 0)), setup)


def _accepted(world: VirtualInterruptWorld) -> VirtualInterruptWorld:
    """What the guest's own local APIC does when the processor takes its highest request."""
    vector = only(highest(world.wanted))
    return attrs.evolve(world, wanted=world.wanted & ~vector, serving=world.serving | vector)


def _either(condition: Word, a: VirtualInterruptWorld, b: VirtualInterruptWorld) -> VirtualInterruptWorld:
    names = [field.name for field in attrs.fields(VirtualInterruptWorld)]
    return VirtualInterruptWorld(
        **{name: ite(condition, getattr(a, name), getattr(b, name)) for name in names}
    )


# -- the guest's instructions ---------------------------------------------------------------------------


def guest_side(cpu: VmxX64, world: VirtualInterruptWorld) -> VirtualInterruptWorld:
    """The processor's side of a world from its state; the rest as it was."""
    return attrs.evolve(
        world,
        enabled=cpu.rflags.if_,
        shadow=cpu.shadow.sti | cpu.shadow.mov_ss,
        requested=register_set(cpu, VIRR),
        in_service=register_set(cpu, VISR),
        task_priority=cpu.virtual_apic.load(Word(12, VTPR)),
        priority=cpu.virtual_apic.load(Word(12, VPPR)),
        rvi=cpu.rvi,
        svi=cpu.svi,
        recognized=cpu.recognized,
    )


def ended(world: VirtualInterruptWorld, setup: VirtualInterruptSetup) -> tuple[VirtualInterruptWorld, Word]:
    """EOI virtualization (30.1.4) on a world; and whether the guest leaves (width 1)."""
    vector = world.svi
    in_service = world.in_service & ~only(vector)
    after = evaluated(attrs.evolve(world, in_service=in_service, svi=highest(in_service)), setup)
    exits = setup.has("eoi-exit-bitmap") & ((world.told & only(vector)) != 0)
    own = attrs.evolve(after, serving=world.serving & ~only(highest(world.serving)))
    return own, exits


def task_priority_set(
    world: VirtualInterruptWorld, value: Word, setup: VirtualInterruptSetup
) -> VirtualInterruptWorld:
    """TPR virtualization (30.1.2) on a world."""
    return evaluated(attrs.evolve(world, task_priority=value), setup)


# -- what is claimed ------------------------------------------------------------------------------------


def invariant(world: VirtualInterruptWorld, setup: VirtualInterruptSetup) -> Word:
    """What holds at every instruction boundary (width 1)."""
    rows = (
        world.rvi == highest(world.requested),
        world.svi == highest(world.in_service),
        world.priority == processor_priority(world.task_priority, world.svi),
        world.recognized == outranks(world.rvi, world.priority) & setup.has("virtual-interrupt-delivery"),
        world.posted == 0,
        world.wanted == world.requested,
        world.serving == world.in_service,
    )
    total = rows[0]
    for row in rows[1:]:
        total = total & row
    return total


PROMISES: Final[Mapping[str, str]] = {
    "masked": "a guest with IF = 0, in an interrupt shadow or at a higher priority is given no interrupt",
    "by-priority": "what is given is the highest vector that its local APIC has requested",
    "not-lost": "every vector that was requested stays so until it is given, and none is given that was not",
    "first-window": "what is requested is given at the first boundary where the guest takes it",
    "host-control": "an external interrupt of the host takes the guest away in the same step",
    "owned": "the guest is given nothing past the virtual-APIC page",
    "end-told": "the VMM learns of the end of every interrupt that it must learn of",
}
"""The promises of a step, by name."""


def promises(
    world: VirtualInterruptWorld, arrivals: VirtualArrivals, step: VirtualInterruptStep
) -> Mapping[str, Word]:
    """Whether a step keeps each promise (width 1)."""
    own = processor_priority(world.task_priority, highest(world.serving))
    host = arrivals.interrupt & ~arrivals.posts & ~arrivals.for_guest
    return {
        "masked": ~step.given | (world.open & outranks(step.vector, own)),
        "by-priority": ~step.given | (step.vector == highest(world.wanted)),
        "not-lost": (step.after.wanted == step.after.requested) & (step.after.posted == 0),
        "first-window": ~world.takes | step.given,
        "host-control": ~host | step.left | step.given,
        "owned": ~step.past,
    }
