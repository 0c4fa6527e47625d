"""States and operands for property tests, for every machine alike.

A uniformly random state mostly traps at the first check.  So an example starts from one of several
places: the reset state, or a state that the solver was asked for because it goes through one
particular path.  What that place leaves open is filled at random with a bias to boundaries, a few of the
leaves that the instruction reads are then changed, and the whole is mended into a state that exists.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import attrs
from hypothesis import strategies as st

from popek.architectures.ia32 import paged as ia32_paged
from popek.architectures.ia32.state import (
    CR4_DEFINED,
    VIRTUAL_8086_RIGHTS,
    real_base,
)
from popek.architectures.ia64.state import DCR_DEFINED, PSR_DEFINED, RING, VIRTUAL_BITS
from popek.architectures.m68k.state import SR_BITS
from popek.architectures.pdp11.state import PS_BITS
from popek.architectures.riscv import paged as rv64_paged
from popek.architectures.riscv.machine import CHOICES as RV64_CHOICES
from popek.architectures.riscv.machine import EXISTING as RV64_EXISTING
from popek.architectures.riscv.state import CHANGEABLE as RV64_CHANGEABLE
from popek.architectures.svm.operation.assistance import governed_forms as governed_by_svm
from popek.architectures.svm.operation.assistance import governed_forms_64 as governed_by_svm_64
from popek.architectures.svm.operation.technique import hardware as ia32_svm
from popek.architectures.svm.operation.technique import hardware_64 as x86_64_svm
from popek.architectures.vtx.operation.assistance import governed_forms
from popek.architectures.x86 import registers
from popek.architectures.x86.registers import (
    EFLAGS_DEFINED,
    EFLAGS_FIXED,
    SEGMENT_NAMES,
)
from popek.architectures.x86_64 import paged as x86_64_paged
from popek.architectures.x86_64 import state as x64
from popek.architectures.x86_64.addresses import LINEAR_BITS
from popek.checks.runs import Run, explore_instruction
from popek.kernel import terms
from popek.kernel.evaluation import evaluate
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import NotModelled
from popek.kernel.state import Leaf, State
from popek.kernel.terms import Term
from popek.kernel.words import Word
from popek.machines import makers
from popek.solving.solver import Model


def _forms(name: str, make: Callable[[], Machine[Any]]) -> list[str]:
    """The forms of a machine; of IA-32 with VMX or SVM those that it has a say in, for the others are IA-32's.

    Of the far transfers, which exit for task switches alone, two stand for all.
    """
    if name == "ia32-vt-x":
        return [*governed_forms(), "JMP ptr16:32", "INT imm8"]
    if name == "ia32-svm":
        return [*governed_by_svm(), "JMP ptr16:32", "INT3"]
    if name == "x86-64-svm":
        return [*governed_by_svm_64(), "INT3"]
    return list(WALKED.get(name) or make().instructions)


# A form for each way in which VMX has its say on x86-64; the machines beneath and beside it have the others.
_ONE_OF_EACH = (
    *(
        "MOV CR0, r64",
        "MOV r64, CR4",
        "MOV CR3, r64",
        "MOV CR8, r64",
        "MOV r64, CR8",
        "MOV DR7, r64",
        "LMSW m16",
    ),
    *(
        "SMSW r64",
        "CLTS",
        "SGDT m",
        "LTR r16",
        "INSB",
        "OUT DX, AL",
        "RDMSR",
        "WRMSR",
        "RDTSCP",
        "INVPCID r64, m128",
    ),
    *("XSAVES m", "VMREAD r64, r64", "VMCLEAR m64", "VMFUNC", "MWAIT", "IRETQ"),
)

WALKED = {
    "ia32-paged": ("MOV m32, r32", "VERW r16"),
    "rv64-paged": ("LD rd, offset(rs1)", "HLVX.WU rd, (rs1)"),
    "x86-64-paged": ("MOV r64, m64",),
    "x86-64-vt-x": _ONE_OF_EACH,
}
"""Machines of which not every form is asked; those that walk page tables: a write, an implicit read, four levels."""

MAKERS: Mapping[str, Callable[[], Machine[Any]]] = {
    **makers(),
    "ia32-paged": ia32_paged.build,
    "ia32-svm": ia32_svm,
    "x86-64-svm": x86_64_svm,
    "rv64-paged": rv64_paged.build,
    "x86-64-paged": x86_64_paged.build,
}
FORMS = [(name, form) for name, make in MAKERS.items() for form in _forms(name, make)]
"""Every form of every machine, as (machine, form)."""

# Bytes that mean something: descriptor types, access rights, small selectors, signs, masks.
BYTES = (0, 1, 2, 3, 7, 8, 0x0B, 0x10, 0x1B, 0x23, 0x40, 0x7F, 0x80, 0x82, 0x84, 0x89, 0x8B, 0x8C, 0x8E, 0x90,
         0x92, 0x93, 0x9A, 0x9B, 0x9E, 0xCF, 0xEC, 0xEE, 0xF3, 0xFA, 0xFB, 0xFE, 0xFF)  # fmt: skip


@cache
def machine(name: str) -> Machine[Any]:
    """A machine, made once."""
    return MAKERS[name]()


@cache
def explored(name: str, form: str) -> Run[Any]:
    """Every path of a form, explored once."""
    return _explored(name, form)[0]


@attrs.frozen
class Aim:
    """Where an example starts: numbers for components and operands, and cells by memory."""

    numbers: Mapping[str, int] = attrs.field(factory=dict)
    cells: Mapping[str, Mapping[int, int]] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Example:
    """A concrete state that exists, operands that exist, and answers to what the manual leaves undefined."""

    state: State
    operands: Mapping[str, Word]
    undefined: Mapping[str, int]

    def numbers(self) -> dict[str, int]:
        """A number for every symbol of a run."""
        words = {name: int(word) for name, word in self.state.words().items()}
        return words | {name: int(word) for name, word in self.operands.items()} | dict(self.undefined)

    def functions(self) -> dict[str, Callable[[int], int]]:
        """The cells of every memory."""
        return {name: _reader(content) for name, content in self.state.memories().items()}


def _reader(content: Memory) -> Callable[[int], int]:
    return lambda address: int(content.load(Word(content.address_width, address)))


@attrs.frozen(repr=False)
class Everywhere:
    """Contents that answer at every address: the given cells, and something interesting elsewhere."""

    cells: Mapping[int, int]
    pool: tuple[int, ...]
    width: int

    def __call__(self, address: Word) -> Word:
        """The cell at a concrete address."""
        where = int(address)
        other = self.pool[(where * 0x9E3779B1 >> 13 ^ where) % len(self.pool)]
        return Word(self.width, self.cells.get(where, other))


def _aim(conditions: Sequence[Term], model: Model | None) -> Aim | None:
    """Numbers that meet the conditions; None if no assignment is known."""
    if model is None:
        return None
    cells: dict[str, dict[int, int]] = {}
    for cell in terms.applications_of(conditions):
        cells.setdefault(str(cell.data), {})[model(cell.args[0])] = model(cell)
    variables = terms.variables_of(conditions)
    aim = Aim({variable: model(term) for variable, term in variables.items()}, cells)
    tables = {name: table.__getitem__ for name, table in aim.cells.items()}
    assert all(evaluate(conditions, aim.numbers, tables)), "an assignment that was kept does not fit"
    return aim


@cache
def _explored(name: str, form: str) -> tuple[Run[Any], tuple[Aim | None, ...]]:
    """The paths, and an aim for each."""
    known = machine(name)
    instruction = known.instructions[form]
    run = explore_instruction(known, instruction)
    assumed = [known.invariant(run.before).term, instruction.valid(run.operands).term]
    found = tuple(_aim([*assumed, *p.conditions], run.known.get(p.conditions)) for p in run.paths)
    return run.without_assignments(), found


def aims(name: str, form: str) -> tuple[tuple[int, Aim], ...]:
    """Path numbers, each with a start that goes through that path."""
    return tuple((number, aim) for number, aim in enumerate(_explored(name, form)[1]) if aim is not None)


@cache
def _read(name: str, form: str) -> tuple[Leaf, ...]:
    """The leaves that a run reads."""
    run = explored(name, form)
    roots = [condition for path in run.paths for condition in path.conditions]
    for path in run.paths:
        if not isinstance(path.result, NotModelled):
            after = path.result.state
            roots += [w.term for n, w in after.words().items() if w.term is not run.before.words()[n].term]
    names = set(terms.variables_of(roots))
    return tuple(leaf for leaf in machine(name).state.leaves if leaf.component in names)


@cache
def _copies_blocks(name: str, form: str) -> bool:
    """Whether a run copies a number of cells that is not fixed: on a dictionary that would be unrolled."""
    results = [p.result for p in explored(name, form).paths if not isinstance(p.result, NotModelled)]
    return any(
        isinstance(store, Block) for r in results for m in r.state.memories().values() for store in m.stores
    )


@st.composite
def examples(draw: st.DrawFn, name: str, form: str) -> Example:
    """States and operands for one form, of which every invariant holds."""
    aimed = [Aim(), *(aim for _, aim in aims(name, form))]
    aim = aimed[draw(st.integers(0, len(aimed) - 1))]
    seed = draw(st.integers(0, 2**32 - 1))  # 0 leaves at reset what the aim leaves open
    changes = draw(st.lists(st.integers(0, 2**48 - 1), max_size=4))
    return example(name, form, aim, seed, changes)


def example(name: str, form: str, aim: Aim, seed: int, changes: list[int]) -> Example:
    """An example; `changes` pick a leaf that is read (low 16 bits) and a value for it."""
    known, chance = machine(name), random.Random(seed)
    instruction = known.instructions[form]
    start = known.state.reset()
    exists = start.with_changes({n: v for n, v in aim.numbers.items() if n in start.words()})
    wanted: dict[str, int] = {}
    if seed:
        fixed = set(aim.numbers)
        wanted = {x.name: boundary(chance, x) for x in known.state.leaves if x.component not in fixed}
    read = _read(name, form) or known.state.leaves
    for change in changes:
        leaf = read[(change & 0xFFFF) % len(read)]
        wanted[leaf.name] = boundary(random.Random(change), leaf)
    mend = MENDERS.get(name)
    state = exists.with_changes(wanted)
    if mend is not None and known.invariant(state).value == 0:
        mend(state)
    state = fitted(known, exists, {n: int(w) for n, w in state.words().items() if w is not exists.words()[n]})
    everywhere = bool(seed & 1) or _copies_blocks(name, form)
    for memory_name, content in state.memories().items():
        width = content.cell_width
        pool = tuple(_cell(chance, width) for _ in range(12)) if seed else (0,)
        cells = {**_scattered(chance, content, pool), **aim.cells.get(memory_name, {})}
        root = Everywhere(cells, pool, width) if everywhere else dict(cells)
        state.memories()[memory_name] = Memory(content.address_width, width, root)  # type: ignore[index]
    undefined = {
        variable: aim.numbers.get(variable, boundary_number(chance, term.width))
        for variable, term in _undefined(name, form).items()
    }
    operands = _operands(instruction, aim, chance)
    return Example(state.with_undefined(undefined), operands, undefined)


@cache
def _undefined(name: str, form: str) -> Mapping[str, Term]:
    roots = []
    for path in explored(name, form).paths:
        roots += path.conditions
        if not isinstance(path.result, NotModelled):
            roots += [word.term for word in path.result.state.words().values()]
            roots += [t for m in path.result.state.memories().values() for t in stored(m)]
    found = terms.variables_of(roots)
    return {variable: term for variable, term in found.items() if variable.startswith("undefined ")}


def stored(content: Memory) -> list[Term]:
    """The terms of every store of a memory."""
    found = []
    for entry in content.stores:
        if isinstance(entry, Block):
            found += [entry.destination.term, entry.source.term, entry.cells.term, *stored(entry.contents)]
        else:
            found += [entry[0].term, entry[1].term]
    return found


def boundary(chance: random.Random, leaf: Leaf) -> int:
    """A value for a leaf: 0, all ones, the reset value, or any."""
    return leaf.reset if chance.random() < 0.25 else boundary_number(chance, leaf.width)


def boundary_number(chance: random.Random, width: int) -> int:
    """A number of so many bits, often at a boundary."""
    top = (1 << width) - 1
    match chance.randrange(7):
        case 0:
            return 0
        case 1:
            return top
        case 2:
            return min(top, 1 << chance.randrange(width))
        case 3:
            return top ^ 1 << chance.randrange(width)
        case 4:
            return chance.randrange(min(top, 0x40) + 1)
    return chance.randrange(top + 1)


def _cell(chance: random.Random, width: int) -> int:
    if width == 8 and chance.random() < 0.8:
        return chance.choice(BYTES)
    return boundary_number(chance, width)


def _scattered(chance: random.Random, content: Memory, pool: tuple[int, ...]) -> dict[int, int]:
    """A handful of cells near the ends and near nothing in particular."""
    top = (1 << content.address_width) - 1
    return {boundary_number(chance, content.address_width) & top: chance.choice(pool) for _ in range(6)}


def _operands(instruction: Instruction, aim: Aim, chance: random.Random) -> dict[str, Word]:
    """Operands that exist: the aim's, else at random; the simplest ones if chance does not find any."""
    result: dict[str, Word] = {}
    for operand in instruction.inputs:
        parts = list(operand.part_names())
        for attempt in range(20):
            for part, (full, width) in zip(operand.kind.parts, parts, strict=True):
                value = aim.numbers.get(full) if attempt == 0 else None
                if value is None:
                    value = (
                        operand.kind.first.get(part, 0) if attempt == 19 else boundary_number(chance, width)
                    )
                result[full] = Word(width, value)
            if operand.kind.valid(operand.own(result)).value == 1:
                break
    assert instruction.valid(result).value == 1, f"{instruction.form}: no valid operands were found"
    return result


def fitted(known: Machine[Any], exists: State, changes: Mapping[str, int]) -> State:
    """As many of the changes as leave a state that exists; `exists` is one."""
    state = exists.with_changes(changes)
    if known.invariant(state).value == 1:
        return state
    if len(changes) == 1:
        return exists
    items, half = list(changes.items()), len(changes) // 2
    return fitted(known, fitted(known, exists, dict(items[:half])), dict(items[half:]))


# -- states that exist, by construction -----------------------------------------------------------


def _mend_debug_registers(cpu: Any) -> None:
    cpu.dr6 = (cpu.dr6.value & registers.DR6_DEFINED) | registers.DR6_FIXED
    cpu.dr7 = (cpu.dr7.value & registers.DR7_DEFINED) | registers.DR7_FIXED


def _mend_ia32(cpu: Any) -> None:
    """Into a state that exists in the mode that CR0.PE and EFLAGS.VM say."""
    _mend_debug_registers(cpu)
    cpu.eflags = (cpu.eflags.value & EFLAGS_DEFINED) | EFLAGS_FIXED
    cpu.cr0 = cpu.cr0.value | 0x10
    cpu.cr4 = cpu.cr4.value & CR4_DEFINED
    cpu.xcr0 = (cpu.xcr0 & 3) | 1
    for name in (*SEGMENT_NAMES, "ldtr", "tr"):
        cpu[f"{name}.rights"] = cpu[f"{name}.rights"] & 0x1F0FF
    ldtr, tr = cpu.ldtr.rights, cpu.tr.rights
    if not ldtr.unusable:
        ldtr.p, ldtr.s, ldtr.type = 1, 0, 2
    tr.unusable, tr.p, tr.s, tr.type = 0, 1, 0, (tr.type & 8) | 3
    if cpu.eflags.vm:
        cpu.cr0.pe = 1
        for name in SEGMENT_NAMES:
            segment = getattr(cpu, name)
            segment.base = real_base(segment.selector.value)
            segment.limit, segment.rights = 0xFFFF, VIRTUAL_8086_RIGHTS
    elif not cpu.cr0.pe:
        cpu.cr0.pg = 0
        for name in SEGMENT_NAMES:
            rights = getattr(cpu, name).rights
            rights.unusable, rights.p, rights.s = 0, 1, 1
            rights.type = (rights.type & 0b0101) | 2
        cpu.cs.rights.type = 3
        cpu.ss.rights.dpl = cpu.cs.rights.dpl = 0
    else:
        _mend_protected(cpu)


def _mend_protected(cpu: Any) -> None:
    cpl, cs, ss = cpu.cpl, cpu.cs.rights, cpu.ss.rights
    for rights in (cs, ss):
        rights.unusable, rights.p, rights.s = 0, 1, 1
    cs.type = cs.type | 8
    if not (cs.type[2] and cs.dpl <= cpl):  # conforming code may be more privileged
        cs.dpl = cpl
    ss.type = (ss.type & 0b0101) | 2
    cpu.ss.selector.rpl = cpu.cs.selector.rpl = cpl
    for name in ("es", "ds", "fs", "gs"):
        rights = getattr(cpu, name).rights
        if not rights.unusable:
            rights.p, rights.s = 1, 1
            rights.type = rights.type | ((rights.type >> 3) << 1)  # code that is readable


def _mend_svm(cpu: Any) -> None:
    _mend_ia32(cpu)
    cpu.cr0 = cpu.cr0.value & 0xE005003F
    if cpu.cr0.nw:
        cpu.cr0.cd = 1


def _mend_vmx(cpu: Any) -> None:
    _mend_ia32(cpu)
    cpu.cr0 = cpu.cr0.value & 0xE005003F
    if cpu.cr0.nw:
        cpu.cr0.cd = 1
    if cpu.non_root:
        cpu.cr0, cpu.cr4 = cpu.cr0.value | 0x80000021, cpu.cr4.value | 0x2000


def _mend_x64(cpu: Any) -> None:
    _mend_debug_registers(cpu)
    cpu.cr3 = cpu.cr3 & ~Word(64, x64.RESERVED_IN_CR3)
    cpu.msr.apic_base = cpu.msr.apic_base.value & x64.APIC_BASE_DEFINED
    cpu.msr.misc_enable = cpu.msr.misc_enable.value & x64.MISC_ENABLE_DEFINED
    cpu.msr.pat = cpu.msr.pat & 0x07070707_07070707
    cpu.rflags = (cpu.rflags.value & EFLAGS_DEFINED & ~Word(32, 1 << 17)) | EFLAGS_FIXED
    cpu.cr0 = cpu.cr0.value | 0x80000011
    cpu.cr0.nw = cpu.cr0.nw & cpu.cr0.cd
    cpu.cr4 = (cpu.cr4.value & x64.CR4_DEFINED) | 0x20
    cpu.efer = (cpu.efer.value & x64.EFER_DEFINED) | 0x500
    cpu.xcr0 = (cpu.xcr0.value & x64.XCR0_DEFINED) | 1
    cpu.xcr0.sse = cpu.xcr0.sse | cpu.xcr0.avx
    for name in x64.CANONICAL:
        cpu[name] = cpu[name].truncate(LINEAR_BITS).sign_extend(64)
    for name in ("es", "cs", "ss", "ds"):
        cpu[f"{name}.base"] = cpu[f"{name}.base"].truncate(32).zero_extend(64)
    for name in (*SEGMENT_NAMES, "ldtr", "tr"):
        cpu[f"{name}.rights"] = cpu[f"{name}.rights"] & 0x1F0FF
    unusable = cpu.ss.rights.unusable & (cpu.cpl != 3)
    _mend_protected(cpu)
    cpu.cs.rights.db = cpu.cs.rights.db & ~cpu.cs.rights.l
    if unusable:
        cpu.ss.rights.unusable, cpu.ss.selector.ti, cpu.ss.selector.index = 1, 0, 0
    ldtr, tr = cpu.ldtr.rights, cpu.tr.rights
    if not ldtr.unusable:
        ldtr.p, ldtr.s, ldtr.type = 1, 0, 2
    tr.unusable, tr.p, tr.s, tr.type = 0, 1, 0, 11


def _mend_ia64(cpu: Any) -> None:
    cpu.psr = cpu.psr.value & PSR_DEFINED
    cpu.cr.ipsr, cpu.cr.dcr = cpu.cr.ipsr & PSR_DEFINED, cpu.cr.dcr & DCR_DEFINED
    cpu.psr.vm = cpu.psr.vm & cpu.features.vm
    if int(cpu.psr.ri) == 3:
        cpu.psr.ri = 2
    cpu.ip = cpu.ip & ~Word(64, 0xF)
    cpu.cfm.sof = int(cpu.cfm.sof) % (RING + 1)
    cpu.cfm.sol = int(cpu.cfm.sol) % (int(cpu.cfm.sof) + 1)
    cpu.bof = Word(7, int(cpu.bof) % RING)
    cpu.vpsr = cpu.vpsr.value & VIRTUAL_BITS


def _mend_ka10(cpu: Any) -> None:
    cpu.flags = cpu.flags.value & ~Word(13, 0b111100)
    _mend_pdp10(cpu)


def _mend_ks10(cpu: Any) -> None:
    if int(cpu.flags.user):
        cpu.pxct = Word(4, 0)
    _mend_pdp10(cpu)


def _mend_pdp10(cpu: Any) -> None:
    cpu.running = Word(1, 1)
    if not int(cpu.flags.user):
        reset = type(cpu).reset()
        cpu.bound, cpu.base = reset.bound, reset.base


def _mend_pdp11(cpu: Any) -> None:
    cpu.ps = cpu.ps.value & PS_BITS
    for field in ("current", "previous"):
        if int(getattr(cpu.ps, field)) == 2:
            setattr(cpu.ps, field, 3)
    cpu.running, cpu.waiting = Word(1, 1), Word(1, 0)
    cpu.last = Word(cpu.last.width, int(cpu.last) % 0o7600)


def _mend_m68k(cpu: Any) -> None:
    cpu.sr = cpu.sr.value & SR_BITS
    cpu.running, cpu.ahead = Word(1, 1), Word(3, int(cpu.ahead) % 5 + 1)
    for name in ("bound", "other_bound"):
        cpu[name] = Word(16, min(int(cpu[name]), 1 << 15))
    if not int(cpu.m68010):
        cpu.vbr, cpu.sfc, cpu.dfc = Word(32, 0), Word(3, 0), Word(3, 0)


def _mend_s360(cpu: Any) -> None:
    if int(cpu.extended):
        cpu.psw.channels = 0
    else:
        cpu.psw.dat = 0


def _mend_s370(cpu: Any) -> None:
    _mend_s360(cpu)
    if not int(cpu.extended):
        cpu.psw.per = 0


def _mend_paged_ia32(cpu: Any) -> None:
    _mend_ia32(cpu)
    cpu.reserved.size = cpu.read_only.size = 0


def _mend_vmx_x64(cpu: Any) -> None:
    _mend_x64(cpu)
    if cpu.non_root:
        cpu.cr0, cpu.cr4 = cpu.cr0.value | 0x80000021, cpu.cr4.value | 0x2000


def _mend_paged_x64(cpu: Any) -> None:
    _mend_x64(cpu)
    cpu.reserved.size = cpu.read_only.size = 0


def _mend_rv64(cpu: Any) -> None:
    """Into bits that exist, and a mode that does."""
    for name, (writable, fixed) in RV64_EXISTING.items():
        choice = RV64_CHOICES.get(name, 0)
        number = int(cpu[name]) & (writable | choice) | fixed & ~choice
        cpu[name] = Word(cpu[name].width, number)
    cpu.changeable = Word(26, int(cpu.changeable.value) & RV64_CHANGEABLE)
    if cpu.prv == 2:
        cpu.prv = 0
    cpu.v = cpu.v & cpu.misa.h & (cpu.prv != 3)
    _mend_rv64_choices(cpu)
    if cpu.mstatus.mpp == 2:
        cpu.mstatus.mpp = 0
    cpu.mstatus.mprv = cpu.mstatus.mprv & (cpu.prv == 3)
    cpu.mstatus.mpv, cpu.mstatus.gva = cpu.mstatus.mpv & cpu.misa.h, cpu.mstatus.gva & cpu.misa.h
    for name in ("pc", "mepc", "sepc", "vsepc"):
        cpu[name] = cpu[name].replace(0, 0, 0)
    cpu.pc = cpu.extended(cpu.pc.replace(1, 1, cpu.pc[1] & cpu.misa.c))
    for entry in range(4):
        cpu[f"pmpcfg0.w{entry}"] = cpu[f"pmpcfg0.w{entry}"] & cpu[f"pmpcfg0.r{entry}"]
    for name in ("satp", "vsatp", "hgatp"):
        cpu[f"{name}.mode"] = (
            Word(4, 0) if int(cpu[f"{name}.mode"]) not in (0, 8, 9, 10) else cpu[f"{name}.mode"]
        )


def _mend_rv64_choices(cpu: Any) -> None:
    """Into widths, identifiers and statuses that the hart's own features admit; S and VS have 64 bits."""
    features = cpu.features
    features.asidlen = min(int(features.asidlen), 16)
    features.vmidlen = min(int(features.vmidlen), 14)
    for name, length in (
        ("satp.asid", features.asidlen),
        ("vsatp.asid", features.asidlen),
        ("hgatp.vmid", features.vmidlen),
    ):
        cpu[name] = cpu[name] & (1 << int(length)) - 1
    machine_mode = cpu.prv == 3
    cpu.mstatus.sxl = 1 if features.sxl32 & machine_mode & (cpu.mstatus.sxl == 1) else 2
    cpu.hstatus.vsxl = 1 if features.sxl32 & ~cpu.v & (cpu.hstatus.vsxl == 1) else 2
    narrow = (features.uxl32 & (cpu.mstatus.uxl == 1)) | (cpu.mstatus.sxl == 1)
    cpu.mstatus.uxl = 1 if narrow else 2
    cpu.vsstatus.uxl = 1 if features.uxl32 & (cpu.vsstatus.uxl == 1) else 2
    if not cpu.misa.v:
        cpu.mstatus.vs, cpu.vsstatus.vs = 0, 0


def _mend_paged_rv64(cpu: Any) -> None:
    """Also into Sv39 and Sv39x4, or neither."""
    cpu.features.sv39 = 1
    _mend_rv64(cpu)
    for name in ("satp", "vsatp", "hgatp"):
        cpu[f"{name}.mode"] = cpu[f"{name}.mode"] & 8


MENDERS: Mapping[str, Callable[[Any], None]] = {
    "ia32": _mend_ia32,
    "ia32-paged": _mend_paged_ia32,
    "ia32-svm": _mend_svm,
    "ia32-vt-x": _mend_vmx,
    "ia64": _mend_ia64,
    "m68k": _mend_m68k,
    "pdp10-ka10": _mend_ka10,
    "pdp10-ks10": _mend_ks10,
    "pdp11-45": _mend_pdp11,
    "rv64": _mend_rv64,
    "rv64-paged": _mend_paged_rv64,
    "s360-67": _mend_s360,
    "s370": _mend_s370,
    "x86-64": _mend_x64,
    "x86-64-paged": _mend_paged_x64,
    "x86-64-svm": _mend_x64,
    "x86-64-vt-x": _mend_vmx_x64,
}
"""What makes a state exist that was put together at random; machines not named need nothing."""
