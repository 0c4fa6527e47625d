"""What fidelity and safety ask of the VM-execution controls, instruction by instruction.

From every guest state G and everything P that the VMM may own, the hardware is in f(G, P)
(`ownership.virtual_machine`).  An instruction is

* unfaithful where it does not exit, and ends otherwise than on the guest's own machine: another state,
  another fault (the hardware delivers it to the guest), a fault on one of them alone, or a change of what
  the VMM keeps for the guest and never learns of;
* unsafe where it completes and changes what the VMM owns.

A VM exit gives the VMM control and is always faithful: the VMM finishes what the guest's machine would do.  The
controls are symbols of P, a bit each.  This module only states the questions; who answers is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

import attrs

from popek.architectures.requirements import Assume, Requirement, weakest
from popek.architectures.x86.exceptions import UD
from popek.architectures.x86.registers import CR0_DEFINED
from popek.kernel import terms
from popek.kernel.exploration import Path
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.words import FALSE, TRUE, Word, any_of, concat, ite, symbol

from .exits import VM_EXIT
from .ownership import Profile, bits_changed, owned_cell_changed, virtual_machine
from .state import PinControls, PrimaryControls, SecondaryControls, VmxIa32

PRIVATE: Final = "'"  # suffix of the symbols of P

CONTROLS: Final = tuple(
    f"{word}.{name}"
    for word, kind in (("pin", PinControls), ("primary", PrimaryControls), ("secondary", SecondaryControls))
    for name, _ in kind.fields()
    if name
    not in (
        "activate_secondary_controls",
        "activate_tertiary_controls",
        "use_tsc_scaling",
        "virtualize_x2apic_mode",
    )
)
COVERS: Final = ("cr0_mask", "cr4_mask", "io_bitmap", "msr_bitmap")
"""Masks and bitmaps, 1 where they cover whatever the VMM owns, 0 where they cover nothing of it."""

KNOBS: Final = (*CONTROLS, *COVERS)


class Explored(Protocol):
    """All that one instruction can do from a symbolic state (`popek.checks.runs.Run`)."""

    @property
    def before(self) -> VmxIa32: ...  # noqa: D102
    @property
    def paths(self) -> tuple[Path[Outcome[VmxIa32]], ...]: ...  # noqa: D102
    @property
    def operands(self) -> Mapping[str, Word]: ...  # noqa: D102
    def at(self, before: VmxIa32) -> Explored: ...  # noqa: D102


@attrs.frozen(eq=False)
class _Undefined:
    """An instruction that the guest's machine does not have."""

    before: VmxIa32
    operands: Mapping[str, Word]

    @property
    def paths(self) -> tuple[Path[Outcome[VmxIa32]], ...]:
        """#UD, whatever the state."""
        return (Path((), Trap(UD, None, False, self.before)),)

    def at(self, before: VmxIa32) -> Explored:
        """The same from another state."""
        return _Undefined(before, self.operands)


@attrs.frozen(eq=False)
class Obligation:
    """One instruction on the guest's machine and on the hardware.

    Attributes:
        guest, hardware: the two runs.
        assumed: conditions under which they are compared.
        differs: per component, the condition that it does not exit and fidelity fails there; "fault" where one
            of the machines faults and the other does not, or otherwise.
        changed: per component, the condition that it completes and something of the VMM's changes.
        knobs: the settings the instruction depends on, each with its condition of being 1, in declared order.
        owned: what the VMM owns.
        private: its values, as symbols; the masks and bitmaps before they cover what is owned.
        masks: those of CR0 and CR4 that are as they are.
    """

    instruction: Instruction
    guest: Explored
    hardware: Explored
    assumed: tuple[Word, ...]
    differs: Mapping[str, Word]
    changed: Mapping[str, Word]
    knobs: Mapping[str, Word]
    owned: Profile
    private: VmxIa32
    masks: Mapping[str, int]

    def image(self, guest: VmxIa32, private: VmxIa32, setting: Mapping[str, int]) -> VmxIa32:
        """The hardware state from a guest state, a private one, and a value for each of `COVERS` (0 by default)."""
        covers = {name: Word(1, setting.get(name, 0)) for name in COVERS}
        return virtual_machine(self.owned, guest, covered(self.owned, private, covers, self.masks))

    @property
    def unfaithful(self) -> Word:
        """It does not exit and fails fidelity (width 1)."""
        return any_of(self.differs.values())

    @property
    def unsafe(self) -> Word:
        """It completes and changes what the VMM owns (width 1)."""
        return any_of(self.changed.values())

    @property
    def completes(self) -> Word:
        """It completes on the hardware for the guest's kernel (width 1)."""
        return (self.hardware.before.cpl == 0) & _where(self.hardware, lambda o: isinstance(o, Next))

    @property
    def exits(self) -> Word:
        """It ends in a VM exit (width 1)."""
        return _where(self.hardware, lambda o: isinstance(o, Trap) and o.vector is VM_EXIT)

    @property
    def undecided(self) -> Word:
        """The model does not say what happens on the hardware, or on the guest's machine while it does not exit."""
        silent = _where(self.guest, lambda o: isinstance(o, NotModelled))
        return _where(self.hardware, lambda o: isinstance(o, NotModelled)) | (silent & ~self.exits)

    def under(self, setting: Mapping[str, int]) -> list[Word]:
        """The conditions that say a setting of the knobs."""
        return [self.knobs[name] == value for name, value in setting.items() if name in self.knobs]


def _where(run: Explored, kind: Callable[[Outcome[VmxIa32]], bool]) -> Word:
    return any_of(path.condition for path in run.paths if kind(path.result))


def obligation(
    machine: Machine[VmxIa32],
    instruction: Instruction,
    run: Explored,
    owned: Profile,
    fixed: Mapping[str, int] | None = None,
    masks: Mapping[str, int] | None = None,
) -> Obligation:
    """The two runs of one instruction, and what would make it unfaithful or unsafe.

    Args:
        run: from a state that may be anything, in protected mode.
        fixed: knobs by name, where they are not left open.
        masks: `cr0_mask` and `cr4_mask` as they are, whatever the VMM owns.
    """
    settled = fixed or {}
    knob = {name: Word(1, settled[name]) if name in settled else knob_symbol(name) for name in KNOBS}
    private = anything(knob).with_changes({"cr0.pe": 1, "eflags.vm": 0})
    start = run.before.with_changes({"non_root": 0})
    mapped = virtual_machine(owned, start, covered(owned, private, knob, masks))
    guest, hardware = run.at(start), run.at(mapped)
    if instruction.mnemonic in owned.unknown_mnemonics:
        guest = _Undefined(start, run.operands)
    assumed = (
        machine.invariant(start),
        machine.invariant(mapped),
        instruction.valid(run.operands),
        # The guest's machine is its own, without what ring deprivileging keeps from it.
        (start.reserved.size == 0) & (start.read_only.size == 0),
        exists_in_cr0(start.cr0.value) & exists_in_cr0(private.cr0.value),
    )
    differs, changed = _failures(guest, hardware, owned)
    return Obligation(
        instruction, guest, hardware, assumed, differs, changed, _knobs(hardware), owned, private, masks or {}
    )


def knob_symbol(name: str) -> Word:
    """The symbol of a knob (width 1)."""
    return symbol(f"{name}{PRIVATE}" if name in CONTROLS else f"{name} covers{PRIVATE}", 1)


def exists_in_cr0(value: Word) -> Word:
    """Whether CR0 can hold a value (width 1): no bits that it does not have, NW only with CD, PG only with PE."""
    known = (value & (CR0_DEFINED ^ 0xFFFFFFFF)) == 0
    return known & ~(value[29] & ~value[30]) & ~(value[31] & ~value[0])


def anything(knob: Mapping[str, Word]) -> VmxIa32:
    """All that the VMM may have, its controls being the knobs.

    No exception exits, which could only help; the TSC multiplier is 1; there are no CR3 targets; the guest's
    processor has no x2APIC, so nobody virtualizes one.
    """
    constant = {
        "exception_bitmap": 0, "page_fault_mask": 0, "page_fault_match": 0, "cr3_target_count": 0,
        "primary.activate_secondary_controls": 1, "secondary.use_tsc_scaling": 0,
        "secondary.virtualize_x2apic_mode": 0, "non_root": 1,
    }  # fmt: skip
    return VmxIa32.symbolic(PRIVATE).with_changes({**constant, **{name: knob[name] for name in CONTROLS}})


def covered(
    owned: Profile, private: VmxIa32, knob: Mapping[str, Word], masks: Mapping[str, int] | None = None
) -> VmxIa32:
    """The masks and bitmaps where the VMM owns something: all ones or all zeros, as the knobs say.

    `masks` are as they are.
    """
    private = private.copy()
    for name, bits in (("cr0_mask", owned.cr0), ("cr4_mask", owned.cr4)):
        if masks is not None and name in masks:
            private[name] = Word(32, masks[name] & 0xFFFFFFFF)
            continue
        everywhere = ite(knob[name], Word(32, bits), Word(32, 0))
        private[name] = (private[name] & ~Word(32, bits)) | everywhere
    owners: Mapping[str, Callable[[Word], Word]] = {
        "io_bitmap": partial(owned.owns_cell, "ports"),
        "msr_bitmap": lambda place: owned.owns_msr(_msr_number(place)),
    }
    for name, owns in owners.items():
        private._memories[name] = _bitmap(private.memories()[name], knob[name], owns)
    return private


def _msr_number(place: Word) -> Word:
    """The MSR of a bit of the MSR bitmap."""
    return concat(ite(place[13], Word(19, 0xC0000000 >> 13), Word(19, 0)), place[12:0])


def _bitmap(free: Memory, knob: Word, owns: Callable[[Word], Word]) -> Memory:
    return Memory(free.address_width, 1, lambda place: ite(owns(place), knob, free.load(place)))


# -- failures --------------------------------------------------------------------------------------

Failures = dict[str, Word]


def _failures(guest: Explored, hardware: Explored, owned: Profile) -> tuple[Failures, Failures]:
    """Where fidelity and where safety can fail, by component."""
    differs: Failures = {}
    changed: Failures = {}
    for path in hardware.paths:
        here, outcome = path.condition, path.result
        if isinstance(outcome, NotModelled) or (isinstance(outcome, Trap) and outcome.vector is VM_EXIT):
            continue
        if isinstance(outcome, Next):
            _note(changed, here, owned_changes(hardware.before, outcome.state, owned))
        for other in guest.paths:
            both = here & other.condition
            if both.value != 0 and not isinstance(other.result, NotModelled):
                _note(differs, both, compared(guest.before, other.result, outcome, owned))
    return differs, changed


def compared(
    before: VmxIa32,
    native: Outcome[VmxIa32],
    outcome: Outcome[VmxIa32],
    owned: Profile,
    places: Mapping[str, int] | None = None,
) -> Mapping[str, Word]:
    """Where the hardware's outcome is not the image of the native one.

    Args:
        before: the guest's state before.
        places: where storage is compared, by the name of the probe; anywhere by default.
    """
    if isinstance(outcome, Next) and isinstance(native, Next):
        after, done = native.state, outcome.state
        unlike = _different(done, virtual_machine(owned, after, done), places)
        if "nmis" not in owned.owns:  # then nobody asks whether the guest's NMIs are blocked
            unlike.pop("nmi_blocked", None)
        stale = owned_changes(before, after, owned, places)
        return {name: unlike.get(name, FALSE) | stale.get(name, FALSE) for name in (*unlike, *stale)}
    if isinstance(outcome, Trap) and isinstance(native, Trap) and outcome.vector == native.vector:
        if outcome.error_code is None or native.error_code is None:
            return {}
        return {"error code": outcome.error_code != native.error_code}
    return {"fault": TRUE}


def owned_changes(
    before: VmxIa32, after: VmxIa32, owned: Profile, places: Mapping[str, int] | None = None
) -> Failures:
    """What the VMM owns, or keeps for the guest, and is another than before."""
    found = {name: before[name] != after[name] for name in owned.words}
    found["non_root"] = before.non_root != after.non_root
    for name, bits in (("cr0", owned.cr0), ("cr4", owned.cr4)):
        found[name] = bits_changed(bits, before[name], after[name])
    for name in owned.memories:
        old, new = before.memories()[name], after.memories()[name]
        found[name] = owned_cell_changed(owned, name, old, new, probe(name, old, places))
    return {name: condition for name, condition in found.items() if condition.value != 0}


def _note(found: Failures, when: Word, conditions: Mapping[str, Word]) -> None:
    for name, condition in conditions.items():
        found[name] = found.get(name, FALSE) | (when & condition)


def _different(a: VmxIa32, b: VmxIa32, places: Mapping[str, int] | None) -> Failures:
    """Per word component and storage, the condition that they differ."""
    found = {name: word != b[name] for name, word in a.words().items() if word.term is not b[name].term}
    for name, content in a.memories().items():
        other = b.memories()[name]
        if content is not other:
            where = probe(name, content, places)
            found[name] = content.load(where) != other.load(where)
    return {name: condition for name, condition in found.items() if condition.value != 0}


def probe(name: str, storage: Memory, places: Mapping[str, int] | None = None) -> Word:
    """The address at which two contents of a storage are compared: any, or one of the given places."""
    if places is not None:
        return Word(storage.address_width, places.get(f"probed address in {name}", 0))
    return Word(storage.address_width, terms.var(f"probed address in {name}", storage.address_width))


def _knobs(hardware: Explored) -> dict[str, Word]:
    """The settings that the run depends on: those its conditions and its results mention."""
    roots = [condition for path in hardware.paths for condition in path.conditions]
    start = hardware.before
    for path in hardware.paths:
        if isinstance(path.result, Next):
            done = path.result.state
            roots += [w.term for n, w in done.words().items() if w.term is not start[n].term]
            roots += [m.load(probe(n, m)).term for n, m in done.memories().items() if m.stores]
    used = set(terms.variables_of(roots))
    knobs = {name: knob_symbol(name) for name in KNOBS}
    return {name: knob for name, knob in knobs.items() if str(knob.term.data) in used}


# -- requirements ------------------------------------------------------------------------------------


def requirement(duty: Obligation, assume: Assume) -> Requirement:
    """Every question for every setting of the knobs."""
    questions = {
        "unfaithful": duty.unfaithful,
        "unsafe": duty.unsafe,
        "intercepted": duty.exits,
        "completes": duty.completes,
        "undecided": duty.undecided,
    }
    return weakest(duty.instruction, duty.knobs, questions, assume(duty.assumed), throughout=True)


__all__ = [
    "CONTROLS",
    "COVERS",
    "KNOBS",
    "Explored",
    "Obligation",
    "anything",
    "obligation",
    "probe",
    "requirement",
]
