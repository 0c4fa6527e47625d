"""AMD-V declared as a kind of hardware assistance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

import attrs

from popek.architectures.x86.msrs import IA32_EFER
from popek.kernel.assistance import Assistance, Control, Necessity
from popek.kernel.machine import Machine
from popek.kernel.outcome import Trap
from popek.kernel.words import Word

from ...ia32.state import Ia32
from ...x86.assisted.declaration import LONG_MODES, protected_modes, reported
from ..vmcb import exit_codes
from .arrangement import CONTROLS, COVERS, GENERAL_DETECT, WORDS, arrange
from .exits import CR_READ, CR_WRITE, CR_WRITE_TRAP, DR_READ, DR_WRITE, EXCEPTION, VM_EXIT
from .guest_mode import EFER_SVME
from .machine import SOURCE, build, build_64
from .ownership import (
    EVERYTHING,
    EVERYTHING_64,
    OWNABLE,
    OWNABLE_64,
    TOUCHES,
    TOUCHES_64,
    SvmProfile,
    profile,
    profile_64,
)
from .processor import processor
from .settings import hypervisors, hypervisors_64, of_64_bit_guest, of_vmcb_fields, read_vmcbs
from .state import Svm, SvmIa32, SvmX64
from .technique import hardware, hardware_64, named


@cache
def machine() -> Machine[SvmIa32]:
    """The machine of the questions: few exceptions are intercepted."""
    return build(exceptions=False)


@cache
def machine_64() -> Machine[SvmX64]:
    """The same for 64-bit guests."""
    return build_64(exceptions=False)


def _profile(owns: frozenset[str], assume: Mapping[str, int], lacks: Iterable[str]) -> SvmProfile:
    return profile(owns)


def _profile_64(owns: frozenset[str], assume: Mapping[str, int], lacks: Iterable[str]) -> SvmProfile:
    return profile_64(owns | {"tpr"} if assume.get("v_tpr") else owns)


def _refused(owned: SvmProfile) -> str:
    return "paged real mode is not modelled: a VMM that owns cr3 has none" if "cr3" in owned.owns else ""


MODES: Final = protected_modes({}, _refused)


def necessities(owned: SvmProfile) -> tuple[Necessity, ...]:
    """What the ownership profile asks for beyond single instructions."""
    found = [
        Necessity("the guest itself", "vector4.vmrun", "VMRUN refuses a VMCB that does not intercept it"),
        Necessity(
            "shutdown", "vector3.shutdown", "a triple fault of the guest would shut the processor down"
        ),
    ]
    if "cr3" not in owned.owns:
        why = "the guest's own page tables map physical addresses; without nested paging they reach all of memory"
        found.append(Necessity("memory", "enables.nested_paging", why))
    if "interrupts" in owned.owns:
        why = "a physical interrupt would go through the guest's IDT"
        found.append(Necessity("physical interrupts", "vector3.intr", why, "interrupts"))
        why = "the guest's EFLAGS.IF would keep physical interrupts from the VMM"
        found.append(Necessity("physical interrupts in time", "enables.v_intr_masking", why, "interrupts"))
    if "nmis" in owned.owns:
        why = "an NMI would go through the guest's IDT"
        found.append(Necessity("NMIs", "vector3.nmi", why, "nmis"))
    return tuple(found)


def name_of(code: int) -> str:
    """What an exit code is about, in the manual's words."""
    ranges = (
        (CR_READ, "read of CR{}"), (CR_WRITE, "write of CR{}"), (DR_READ, "read of DR{}"), (DR_WRITE, "write of DR{}"),
    )  # fmt: skip
    for start, words in ranges:
        if start <= code < start + 16:
            return words.format(code - start)
    if EXCEPTION <= code < EXCEPTION + 32:
        return f"exception {code - EXCEPTION}"
    if CR_WRITE_TRAP <= code < CR_WRITE_TRAP + 16:
        return f"after a write of CR{code - CR_WRITE_TRAP}"
    return exit_codes()[code]


def plain() -> tuple[SvmIa32, SvmIa32]:
    """What a guest and a VMM look like when nothing is said of them."""
    cr0 = 0x80000031
    host = SvmIa32.reset(cr0=cr0, guest_mode=1, tsc=0)
    host.msr = host.msr.store(Word(32, IA32_EFER), Word(64, EFER_SVME))
    return SvmIa32.reset(cr0=cr0), host


def _before() -> Machine[Ia32]:
    from ...ia32 import machine as ia32

    return ia32.build()


def plain_64() -> tuple[SvmX64, SvmX64]:
    """The same for a 64-bit guest."""
    return SvmX64.reset(), SvmX64.reset(guest_mode=1, enabled=1)


@cache
def governed_forms() -> tuple[str, ...]:
    """The forms that leave a plain guest at CPL 0 whose VMM intercepts all that it can but exceptions.

    Far transfers leave it for task switches alone; INT3, INTO and BOUND by exceptions.
    """
    return _governed(machine(), plain()[1])


@cache
def governed_forms_64() -> tuple[str, ...]:
    """The same of x86-64."""
    return _governed(machine_64(), plain_64()[1])


def _governed(machine: Machine[Any], guest: Svm) -> tuple[str, ...]:
    found = []
    every = {word: (1 << guest[word].width) - 1 for word in (*WORDS, "full_maps") if word != "enables"}
    start = guest.with_changes({**every, "cr4.osxsave": 1})
    for form, instruction in machine.instructions.items():
        outcome = machine.step(instruction, start, instruction.words(instruction.smallest))
        if isinstance(outcome, Trap) and outcome.vector is VM_EXIT:
            found.append(form)
    return tuple(found)


SVM: Final = Assistance[Any](
    "svm",
    "IA-32 with AMD-V",
    machine=machine,
    hardware=hardware,
    before=(_before, "ring-deprivileging-0/1/3"),
    controls=(
        *(Control[Any](name, name.replace(".", " ").replace("_", " "), leaf=name) for name in CONTROLS),
        *(Control[Any](name, f"{name} is 1 for whatever the VMM owns") for name in COVERS),
        Control(
            GENERAL_DETECT, "the VMM's DR7 detects accesses to debug registers", GENERAL_DETECT, chosen=False
        ),
    ),
    ownable=OWNABLE,
    everything=EVERYTHING,
    profile=_profile,
    arrange=arrange,
    touches=TOUCHES,
    modes=MODES,
    is_exit=lambda trap: trap.vector is VM_EXIT,
    report=reported(name_of),
    governed=governed_forms,
    told_apart=lambda mnemonic: " CR" in mnemonic or " DR" in mnemonic,
    plain=plain,
    zero=("iopm", "msrpm"),
    cover=COVERS,
    necessities=necessities,
    processor=processor,
    configurations=hypervisors,
    read=read_vmcbs,
    written=of_vmcb_fields,
    circumstances={GENERAL_DETECT: 0},
    source=SOURCE,
)


def _before_64() -> Machine[Any]:
    from ...x86_64 import machine as x86_64

    return x86_64.build()


SVM_64: Final[Assistance[Any]] = attrs.evolve(
    SVM,
    name="svm-64",
    title="x86-64 with AMD-V",
    machine=machine_64,
    hardware=lambda: named(hardware_64(), "svm-64"),
    before=(_before_64, "ring-deprivileging-0/3/3"),
    ownable=OWNABLE_64,
    everything=EVERYTHING_64,
    profile=_profile_64,
    touches=TOUCHES_64,
    options={"v_tpr": "V_INTR_MASKING keeps the guest's TPR in the VMCB, so that CR8 is the VMM's own"},
    modes=LONG_MODES,
    governed=governed_forms_64,
    plain=plain_64,
    configurations=hypervisors_64,
    read=lambda name, data: [of_64_bit_guest(found) for found in read_vmcbs(name, data)],
    written=lambda fields: of_64_bit_guest(of_vmcb_fields(fields)),
    leaves_open=True,  # MONITOR and MWAIT are intercepted after #GP, and #UD of a guest without them comes first
)

__all__ = ["MODES", "SVM", "SVM_64", "machine", "machine_64", "name_of", "plain", "plain_64"]
