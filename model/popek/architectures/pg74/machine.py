"""The machine of Popek and Goldberg, "Formal Requirements for Virtualizable Third Generation
Architectures", CACM 17(7), 1974, section 2.

Its state is S = <E, M, P, R>: executable storage, mode, program counter, relocation-bounds register.
Every reference is relocated and checked in both modes.  A trap stores the PSW in E[0] and loads the
next one from E[1].  The paper leaves the instruction set open; this one has a representative of every
class.  Each sensitive instruction has a strap: 1 makes it trap in user mode, 0 makes it silent, and the
silent behaviour is one that real machines had.

Sizes are small so that a person can read a state: 8-bit addresses, 32-bit words, PSW in one word as
mode(24), program counter(23:16), base(15:8), bound(7:0).
"""

from __future__ import annotations

from collections.abc import Mapping

from popek.architectures.listing import listing
from popek.kernel.instruction import OperandKind
from popek.kernel.machine import Machine, Setting
from popek.kernel.outcome import Fault, Trap
from popek.kernel.words import Word, concat, ite

from .state import ADDRESS, PRIVILEGED_TRAP, SOURCE, STRAPPED, SUPERVISOR_CALL, WORD, Pg74
from .trap_and_emulate import techniques


def _privileged(cpu: Pg74, strap: Word) -> None:
    """The privileged-instruction trap, where the strap asks for it."""
    if cpu.mode == 1 and strap:
        raise Fault(PRIVILEGED_TRAP)


def _advance(cpu: Pg74, operands: Mapping[str, Word]) -> None:
    cpu.pc = cpu.pc + 1


def _deliver(before: Pg74, trap: Trap[Pg74]) -> Pg74:
    """The PSW exchange: E[0] := PSW, PSW := E[1]."""
    cpu = trap.state.copy()
    cpu.memory = cpu.memory.store(Word(ADDRESS, 0), cpu.psw)
    cpu.load_psw(cpu.memory.load(Word(ADDRESS, 1)))
    return cpu


def _relocate(state: Pg74, offset: Word) -> Pg74:
    """The same program `offset` locations further on in E."""
    moved, old = state.copy(), state.memory
    moved.relocation.base = state.relocation.base + offset
    moved.memory = type(old)(ADDRESS, WORD, lambda address: old.load(address - offset))
    return moved


def _strap_setting(name: str) -> Setting:
    leaf = f"straps.{name.lower()}"
    return Setting(
        name,
        f"{name} in user mode",
        (0, 1),
        lambda state, value: state[leaf] == value,
        1,
        leaf,
        labels={0: "silent", 1: "traps"},
    )


def build() -> Machine[Pg74]:
    """The paper's machine, every strap at "traps" unless a setting says otherwise."""
    reference = OperandKind("a", {"": ADDRESS}, spell=lambda parts: str(parts[""]))
    source = OperandKind("b", {"": ADDRESS}, spell=lambda parts: str(parts[""]))
    machine = Machine(
        "pg74",
        "Popek and Goldberg's third generation machine",
        Pg74,
        supervisor=lambda state: state.mode == 0,
        user=lambda state: state.mode == 1,
        source=SOURCE,
        operands={"a": reference, "b": source},
        settings=tuple(_strap_setting(name) for name in STRAPPED),
        advance=_advance,
        relocate=_relocate,
        relocation_width=ADDRESS,
        reaches=lambda state, address: state.reaches(address),
        fetches=lambda state: state.next_instruction,
        deliver=_deliver,
        techniques=techniques(),
        notes=("input and output, which the paper leaves out too",),
        architecture=listing("pg74"),
    )
    _innocuous(machine)
    _sensitive(machine)
    return machine


def _innocuous(machine: Machine[Pg74]) -> None:
    @machine.instruction("MOVE a, b")
    def move(cpu: Pg74, a: Word, b: Word) -> None:
        """E[a] := E[b]."""
        cpu.store(a, cpu.load(b))

    @machine.instruction("ADD a, b")
    def add(cpu: Pg74, a: Word, b: Word) -> None:
        """E[a] := E[a] + E[b]."""
        cpu.store(a, cpu.load(a) + cpu.load(b))

    @machine.instruction("JUMP a")
    def jump(cpu: Pg74, a: Word) -> None:
        """P := a."""
        cpu.pc = a

    @machine.instruction("JZERO a, b")
    def jump_if_zero(cpu: Pg74, a: Word, b: Word) -> None:
        """P := a if E[b] = 0."""
        cpu.pc = ite(cpu.load(b) == 0, a, cpu.pc)

    @machine.instruction("SVC")
    def supervisor_call(cpu: Pg74) -> None:
        """Trap, in both modes, with P behind the instruction."""
        raise Fault(SUPERVISOR_CALL, keeps=True)


def _sensitive(machine: Machine[Pg74]) -> None:
    @machine.instruction("LPSW a")
    def load_psw(cpu: Pg74, a: Word) -> None:
        """<M, P, R> := E[a]; silent in user mode, it changes P alone (as PDP-11 RTI keeps the mode)."""
        _privileged(cpu, cpu.straps.lpsw)
        new = cpu.load(a)
        if cpu.mode == 1:
            cpu.pc = new[23:16]
        else:
            cpu.load_psw(new)

    @machine.instruction("SREL a")
    def set_relocation(cpu: Pg74, a: Word) -> None:
        """R := E[a]; silent in user mode, it does nothing (as PDP-11 RESET)."""
        _privileged(cpu, cpu.straps.srel)
        new = cpu.load(a)
        if cpu.mode == 0:
            cpu.relocation.base, cpu.relocation.bound = new[15:8], new[7:0]

    @machine.instruction("GREL a")
    def get_relocation(cpu: Pg74, a: Word) -> None:
        """E[a] := R (as IA-32 SGDT reads a table register)."""
        _privileged(cpu, cpu.straps.grel)
        cpu.store(a, concat(Word(WORD - 2 * ADDRESS, 0), cpu.relocation.base, cpu.relocation.bound))

    @machine.instruction("GMODE a")
    def get_mode(cpu: Pg74, a: Word) -> None:
        """E[a] := M (as IA-32 PUSH CS shows the ring)."""
        _privileged(cpu, cpu.straps.gmode)
        cpu.store(a, cpu.mode.zero_extend(WORD))

    @machine.instruction("LRA a, b")
    def load_real_address(cpu: Pg74, a: Word, b: Word) -> None:
        """E[a] := the real address of b (System/360-67 LRA)."""
        _privileged(cpu, cpu.straps.lra)
        cpu.store(a, cpu.real_address(b).zero_extend(WORD))

    @machine.instruction("DROP a")
    def drop_to_user(cpu: Pg74, a: Word) -> None:
        """P := a and M := user (PDP-10 JRST 1); in user mode a plain jump."""
        _privileged(cpu, cpu.straps.drop)
        cpu.mode, cpu.pc = Word(1, 1), a
