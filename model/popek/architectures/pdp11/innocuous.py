"""PDP-11/45 instructions that take no notice of the mode (handbook, chapter 4): one of each kind."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, Vector
from popek.kernel.words import FALSE, TRUE, Word, ite

from .state import BPT_TRAP, EMT_TRAP, HANDBOOK, IOT_TRAP, RESERVED, TRAP_TRAP, Pdp11


def add(machine: Machine[Pdp11]) -> None:
    """Declare them."""
    _moves(machine)
    _arithmetic(machine)
    _branches(machine)
    _subroutines(machine)
    _traps(machine)


def _moves(machine: Machine[Pdp11]) -> None:
    source = f"{HANDBOOK}, chapter 4, MOV"

    def moved(cpu: Pdp11, value: Word) -> Word:
        cpu.set_nz(value)
        cpu.ps.v = FALSE
        return value

    @machine.instruction("MOV R, R", source=source)
    def mov_r_r(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Register to register."""
        cpu.set_register(dst, moved(cpu, cpu.register(src)))

    @machine.instruction("MOV (R), R", source=source)
    def mov_m_r(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Storage to register."""
        cpu.set_register(dst, moved(cpu, cpu.load(cpu.register(src))))

    @machine.instruction("MOV (R)+, R", source=source)
    def mov_increment_r(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Storage to register, autoincrement."""
        address = cpu.register(src)
        cpu.set_register(src, address + 2)
        cpu.set_register(dst, moved(cpu, cpu.load(address)))

    @machine.instruction("MOV R, (R)", source=source)
    def mov_r_m(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Register to storage."""
        cpu.store(cpu.register(dst), moved(cpu, cpu.register(src)))

    @machine.instruction("MOV R, -(R)", source=source)
    def mov_r_decrement(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Register to storage, autodecrement; the source is read first."""
        value = cpu.register(src)
        cpu.set_register(dst, cpu.register(dst) - 2)
        cpu.store(cpu.register(dst), moved(cpu, value))

    @machine.instruction("MOV R, X(R)", source=source)
    def mov_r_index(cpu: Pdp11, src: Word, dst: tuple[Word, Word]) -> None:
        """Register to storage, indexed: the index is the instruction's second word."""
        index, base = dst
        value = cpu.register(src)
        cpu.pc = cpu.pc + 2
        cpu.store(cpu.register(base) + index, moved(cpu, value))

    @machine.instruction("MOV R, -(SP)", source=source)
    def mov_push(cpu: Pdp11, src: Word) -> None:
        """Push."""
        value = cpu.register(src)
        cpu.sp = cpu.sp - 2
        cpu.store(cpu.sp, moved(cpu, value))

    @machine.instruction("MOV (SP)+, R", source=source)
    def mov_pop(cpu: Pdp11, dst: Word) -> None:
        """Pop."""
        address = cpu.sp
        cpu.sp = address + 2
        cpu.set_register(dst, moved(cpu, cpu.load(address)))

    @machine.instruction("CLR (R)", source=f"{HANDBOOK}, chapter 4, CLR")
    def clr(cpu: Pdp11, dst: Word) -> None:
        """Storage := 0."""
        cpu.ps.n, cpu.ps.z, cpu.ps.v, cpu.ps.c = FALSE, TRUE, FALSE, FALSE
        cpu.store(cpu.register(dst), Word(16, 0))


def _arithmetic(machine: Machine[Pdp11]) -> None:
    def sum_of(cpu: Pdp11, src: Word, dst: Word) -> Word:
        wide = src.zero_extend(17) + dst.zero_extend(17)
        result = wide.truncate(16)
        cpu.set_nz(result)
        cpu.ps.v = (~(src[15] ^ dst[15])) & (src[15] ^ result[15])
        cpu.ps.c = wide[16]
        return result

    @machine.instruction("ADD R, R", source=f"{HANDBOOK}, chapter 4, ADD")
    def add_r_r(cpu: Pdp11, src: Word, dst: Word) -> None:
        """dst := dst + src."""
        cpu.set_register(dst, sum_of(cpu, cpu.register(src), cpu.register(dst)))

    @machine.instruction("ADD (R), R", source=f"{HANDBOOK}, chapter 4, ADD")
    def add_m_r(cpu: Pdp11, src: Word, dst: Word) -> None:
        """dst := dst + src, the source in storage."""
        cpu.set_register(dst, sum_of(cpu, cpu.load(cpu.register(src)), cpu.register(dst)))

    @machine.instruction("SUB R, R", source=f"{HANDBOOK}, chapter 4, SUB")
    def sub_r_r(cpu: Pdp11, src: Word, dst: Word) -> None:
        """dst := dst - src; C is the borrow."""
        a, b = cpu.register(dst), cpu.register(src)
        result = a - b
        cpu.set_nz(result)
        cpu.ps.v = (a[15] ^ b[15]) & (~(b[15] ^ result[15]))
        cpu.ps.c = a < b
        cpu.set_register(dst, result)

    @machine.instruction("INC R", source=f"{HANDBOOK}, chapter 4, INC")
    def inc(cpu: Pdp11, dst: Word) -> None:
        """dst := dst + 1; C is kept."""
        result = cpu.register(dst) + 1
        cpu.set_nz(result)
        cpu.ps.v = result == 0o100000
        cpu.set_register(dst, result)

    @machine.instruction("TST R", source=f"{HANDBOOK}, chapter 4, TST")
    def tst_r(cpu: Pdp11, dst: Word) -> None:
        """Condition codes of a register."""
        cpu.set_nz(cpu.register(dst))
        cpu.ps.v = cpu.ps.c = FALSE

    @machine.instruction("TST (R)", source=f"{HANDBOOK}, chapter 4, TST")
    def tst_m(cpu: Pdp11, dst: Word) -> None:
        """Condition codes of a word in storage."""
        cpu.set_nz(cpu.load(cpu.register(dst)))
        cpu.ps.v = cpu.ps.c = FALSE

    @machine.instruction("SXT R", source=f"{HANDBOOK}, chapter 4, SXT")
    def sxt(cpu: Pdp11, dst: Word) -> None:
        """dst := all copies of N."""
        cpu.ps.z, cpu.ps.v = ~cpu.ps.n, FALSE
        cpu.set_register(dst, ite(cpu.ps.n, Word(16, 0o177777), Word(16, 0)))


def _branches(machine: Machine[Pdp11]) -> None:
    def target(cpu: Pdp11, offset: Word) -> Word:
        return cpu.pc + (offset.sign_extend(16) << 1)

    @machine.instruction("BR d", source=f"{HANDBOOK}, chapter 4, BR")
    def br(cpu: Pdp11, offset: Word) -> None:
        """PC := PC + 2 d."""
        cpu.pc = target(cpu, offset)

    @machine.instruction("BEQ d", source=f"{HANDBOOK}, chapter 4, BEQ")
    def beq(cpu: Pdp11, offset: Word) -> None:
        """Branch if Z."""
        cpu.pc = ite(cpu.ps.z, target(cpu, offset), cpu.pc)

    @machine.instruction("SOB R, o", source=f"{HANDBOOK}, chapter 4, SOB")
    def sob(cpu: Pdp11, number: Word, offset: Word) -> None:
        """Subtract one and branch back if not zero; no condition codes."""
        result = cpu.register(number) - 1
        cpu.set_register(number, result)
        cpu.pc = ite(result != 0, cpu.pc - (offset.zero_extend(16) << 1), cpu.pc)

    @machine.instruction("JMP (R)", source=f"{HANDBOOK}, chapter 4, JMP")
    def jmp(cpu: Pdp11, dst: Word) -> None:
        """PC := register."""
        cpu.pc = cpu.register(dst)

    @machine.instruction("CCC", source=f"{HANDBOOK}, chapter 4, condition code operators")
    def ccc(cpu: Pdp11) -> None:
        """Clear all condition codes."""
        cpu.ps.n = cpu.ps.z = cpu.ps.v = cpu.ps.c = FALSE

    @machine.instruction("SEC", source=f"{HANDBOOK}, chapter 4, condition code operators")
    def sec(cpu: Pdp11) -> None:
        """Set C."""
        cpu.ps.c = TRUE


def _subroutines(machine: Machine[Pdp11]) -> None:
    @machine.instruction("JSR R, (R)", source=f"{HANDBOOK}, chapter 4, JSR")
    def jsr(cpu: Pdp11, link: Word, dst: Word) -> None:
        """Push the linkage register, which takes the PC; jump."""
        target = cpu.register(dst)
        cpu.push(cpu.register(link))
        cpu.set_register(link, cpu.pc)
        cpu.pc = target

    @machine.instruction("JSR PC, (R)", source=f"{HANDBOOK}, chapter 4, JSR")
    def jsr_pc(cpu: Pdp11, dst: Word) -> None:
        """Push the PC; jump."""
        target = cpu.register(dst)
        cpu.push(cpu.pc)
        cpu.pc = target

    @machine.instruction("RTS R", source=f"{HANDBOOK}, chapter 4, RTS")
    def rts(cpu: Pdp11, link: Word) -> None:
        """PC := linkage register, which is popped."""
        cpu.pc = cpu.register(link)
        cpu.set_register(link, cpu.pop())

    @machine.instruction("RTS PC", source=f"{HANDBOOK}, chapter 4, RTS")
    def rts_pc(cpu: Pdp11) -> None:
        """PC := (SP)+."""
        cpu.pc = cpu.pop()


def _traps(machine: Machine[Pdp11]) -> None:
    def trap(cpu: Pdp11, *ignored: Word, vector: Vector) -> None:
        """Trap in every mode; the PC is behind the instruction."""
        raise Fault(vector, keeps=True)

    declare = machine.instruction
    declare("EMT t", source=f"{HANDBOOK}, chapter 4, EMT", vector=EMT_TRAP)(trap)
    declare("TRAP t", source=f"{HANDBOOK}, chapter 4, TRAP", vector=TRAP_TRAP)(trap)
    declare("BPT", source=f"{HANDBOOK}, chapter 4, BPT", vector=BPT_TRAP)(trap)
    declare("IOT", source=f"{HANDBOOK}, chapter 4, IOT", vector=IOT_TRAP)(trap)
    # A register has no address; and the 11/45 has neither MTPS nor MFPS nor MFPT.
    source = f"{HANDBOOK}, chapter 2, reserved instructions"
    declare("JMP R", "MTPS R", "MFPS R", "MFPT", source=source, vector=RESERVED)(trap)
