"""VMCSs at the edge: those that violate exactly one check, and those that are one bit away from it.

The solver finds the VMCSs; what counts is what the checks make of them as integers, so each one is judged
before it is handed out.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator
from typing import Final

import attrs

from popek.architectures.vtx.baselines import MODES, Mode, baseline, has_mode
from popek.architectures.vtx.capabilities import Capabilities
from popek.architectures.vtx.entry_checks import CHECKS, Check
from popek.architectures.vtx.evaluation import Evaluator, reads
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.formulas import LOAD_AREA, Formulas, Read
from popek.architectures.vtx.vmcs import Launch, MemoryEntry, Vmcs
from popek.kernel.words import Word
from popek.solving.solver import Effort, Model

from .edges import Edge, Finder, Impossible, alternate

_WIDER: Final = (
    *("PIN_CONTROLS", "PRIMARY_PROC_CONTROLS", "SECONDARY_PROC_CONTROLS", "EXIT_CONTROLS", "ENTRY_CONTROLS"),
    *("ENTRY_INTR_INFO", "GUEST_RFLAGS", "GUEST_INTERRUPTIBILITY", "GUEST_CR0", "GUEST_CR4", "HOST_CR4"),
    *("HOST_IA32_EFER", "GUEST_IA32_EFER"),
    *(f"GUEST_{segment}_{part}" for segment in ("CS", "SS", "DS", "ES", "FS", "GS")
      for part in ("SELECTOR", "BASE", "LIMIT", "ACCESS_RIGHTS")),
)  # fmt: skip
"""What often has to follow when one field changes."""


class Generator:
    """Finds VMCSs that violate one check only, near a VMCS that enters.

    Args:
        base: a VMCS that enters, with all fields given.
        capabilities: of the processor.
        hands_off: ids of fields that keep their value.
        everywhere: whether memory is as the generator likes it; otherwise only the base's memory is used.
        rules: the checks; by default all.
        area: whether the MSR-load area may move and grow; its entries are then not looked at.
        effort: bounds on the solver.
    """

    _for_area: Generator | None

    def __init__(
        self,
        base: Vmcs,
        capabilities: Capabilities,
        *,
        hands_off: Collection[str] = (),
        everywhere: bool = True,
        rules: Iterable[Check] | None = None,
        area: bool = False,
        effort: Effort | None = None,
    ) -> None:
        self.base, self.capabilities, self._everywhere = base, capabilities, everywhere
        self._area, self._for_area, self._hands_off = area, None, frozenset(hands_off)
        self.rules = tuple(check for check in rules or CHECKS.values() if check.certainty != "warning")
        free = {name for name in base.fields if FIELDS[name].area != "exit-information"}
        self.formulas = Formulas(base, capabilities, free - set(hands_off), area=area)
        self.evaluator = Evaluator(capabilities, self.rules)
        self._effort = effort or Effort(rlimit=5_000_000)
        self._finder = Finder(
            self.formulas.symbols,
            {name: FIELDS[name].width for name in self.formulas.symbols},
            base.fields,
            {check.id: self._violation(check) for check in self.rules},
            {check.id: self._passes(check) for check in self.rules},
            _WIDER,
            self._effort,
        )

    def _violation(self, check: Check) -> Word | None:
        violated = self.formulas.violation(check)
        if violated is not None and not self._everywhere:
            for read in self.formulas.reads(check):
                violated = violated & read.known
        return violated

    def _passes(self, check: Check) -> Word | None:
        formulas = self.formulas
        violated = formulas.violation(check, doubt=True) if self._everywhere else formulas.worst(check)
        return None if violated is None else ~violated

    def violation_of(self, check_id: str, rnd: random.Random) -> Vmcs | None:
        """A VMCS that violates this check and no other, another one each time; None if none was found."""
        check = next((check for check in self.rules if check.id == check_id), None)
        if check is None:
            return None
        if not self._area and check.group.name != "msr-load-area" and set(LOAD_AREA) & set(reads(check)):
            return self._with_area().violation_of(check_id, rnd)

        def read(model: Model) -> Vmcs | None:
            found = self._read(model)
            return found if self.broken(found) == {check_id} else None

        return self._finder.violation(check_id, reads(check), rnd, read)

    def _with_area(self) -> Generator:
        if self._for_area is None:
            self._for_area = Generator(
                self.base,
                self.capabilities,
                hands_off=self._hands_off,
                everywhere=self._everywhere,
                rules=self.rules,
                area=True,
                effort=self._effort,
            )
        return self._for_area

    def _read(self, model: Model) -> Vmcs:
        fields = {**self.base.fields}
        for name, word in self.formulas.symbols.items():
            fields[name] = model(word.term)
        vmcs = attrs.evolve(self.base, fields=fields)
        if not self._everywhere:
            return vmcs
        return attrs.evolve(vmcs, memory=self.base.memory + self._memory(vmcs, model))

    def _memory(self, vmcs: Vmcs, model: Model) -> tuple[MemoryEntry, ...]:
        """What the model has in memory where a check cannot do without."""
        findings = self.evaluator.run(vmcs)
        found: dict[int, MemoryEntry] = {}
        for check, what in findings.undecided:
            if what.startswith("memory"):
                for read in self.formulas.reads(check):
                    address = model(read.address.term)
                    found.setdefault(address, _content(read, address, model))
        return tuple(found[address] for address in sorted(found))

    def broken(self, vmcs: Vmcs) -> set[str]:
        """The checks that a VMCS violates, or that some processors would fail."""
        findings = self.evaluator.run(vmcs)
        return {check.id for check in (*findings.violated, *findings.doubtful)}

    def load_entry(self, check_id: str, rnd: random.Random) -> Vmcs | None:
        """A VMCS whose MSR-load area violates this check and no other."""
        if not check_id.startswith("LOAD-") or set(LOAD_AREA) - set(self.base.fields):
            return None
        address = self.base.fields["ENTRY_MSR_LOAD_ADDR"]
        for _ in range(2000):
            index = rnd.choice(_MSR_INDICES)
            high = rnd.choice((0, 0, 0, 1, 1 << 31))
            value = rnd.choice((0, 2, 0x40, 0x100, 0x500, 1 << 32, 1 << 47, 1 << 63, rnd.randrange(1 << 64)))
            entry = ((address, 4, index), (address + 4, 4, high), (address + 8, 8, value))
            changed = self.base.with_fields(ENTRY_MSR_LOAD_COUNT=1)
            vmcs = attrs.evolve(changed, memory=(*changed.memory, *entry))
            if self.broken(vmcs) == {check_id}:
                return vmcs
        return None

    def boundary_of(self, vmcs: Vmcs, check_id: str, rnd: random.Random) -> tuple[Vmcs, str, int] | None:
        """A VMCS one bit away from one that violates the check, and the bit; it violates nothing."""
        check = next(check for check in self.rules if check.id == check_id)

        def passes(name: str, value: int) -> Vmcs | None:
            other = vmcs.with_fields(**{name: value})
            findings = self.evaluator.run(other)
            fine = not (findings.violated or findings.doubtful or _lacks(findings.undecided))
            return other if fine else None

        return self._finder.beside(vmcs.fields, reads(check), rnd, passes)


def _lacks(undecided: Iterable[tuple[Check, str]]) -> bool:
    return any(what in FIELDS or what.startswith("memory") for _, what in undecided)


def _content(read: Read, address: int, model: Model) -> MemoryEntry:
    return address, read.size, model(read.value.term) & (1 << 8 * read.size) - 1


_MSR_INDICES: Final = (
    *(0x79, 0x8B, 0x9B, 0x9E, 0x174, 0x175, 0x176, 0x1D9, 0x277, 0x38F, 0x6A2, 0x6A4, 0x6A8, 0x808),
    *(0xC000_0080, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0100, 0xC000_0101, 0xC000_0102, 0xC000_0103),
)


TOGETHER: Final = 200


def blocks(count: int) -> list[tuple[int, int]]:
    """Numbers of VMCSs as blocks that can be made apart, each from a seed of its own: which one, and how many."""
    return [(block, min(TOGETHER, count - begin)) for block, begin in enumerate(range(0, count, TOGETHER))]


def generate(
    check_id: str,
    count: int,
    seed: int,
    capabilities: Capabilities,
    launch: Launch | None = None,
    *,
    block: int = 0,
) -> Iterator[Edge]:
    """VMCSs that violate one check only and, in turn, VMCSs one bit away from it.

    Args:
        check_id: of the check.
        count: how many; where no single bit mends a violation, all of them violate the check.
        seed: the same seed gives the same VMCSs.
        capabilities: of the processor.
        launch: what the processor does; by default as `Launch()`.
        block: another block has other VMCSs.

    Raises:
        Impossible: no VMCS of this processor violates the check alone.
    """
    rnd = random.Random(f"{check_id} {seed} {block}" if block else f"{check_id} {seed}")
    generators: dict[Mode, Generator] = {}

    def generator(mode: Mode) -> Generator:
        if mode not in generators:
            base = attrs.evolve(baseline(mode, capabilities), launch=launch or Launch())
            generators[mode] = Generator(base, capabilities)
        return generators[mode]

    return alternate(
        check_id,
        count,
        rnd,
        [mode for mode in MODES if has_mode(mode, capabilities)],
        lambda mode: generator(mode).violation_of(check_id, rnd) or generator(mode).load_entry(check_id, rnd),
        lambda mode, found: generator(mode).boundary_of(found, check_id, rnd),
        lambda: _why_not(check_id, capabilities),
    )


def _why_not(check_id: str, capabilities: Capabilities) -> str:
    check = CHECKS[check_id]
    if check.group.name == "basic":
        return f"{check_id} is about the instruction and the processor's mode: no field of a VMCS violates it"
    if check.certainty == "warning":
        return f"{check_id} only warns: no VMCS fails the entry because of it"
    return f"no VMCS was found that violates {check_id} alone on {capabilities.name}; see `popek vmcs rules`"


__all__ = ["TOGETHER", "Edge", "Generator", "Impossible", "blocks", "generate"]
