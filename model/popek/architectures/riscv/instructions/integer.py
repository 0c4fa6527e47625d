"""RV64I: integers, branches, loads and stores, fences, ECALL and EBREAK (unprivileged manual)."""

from __future__ import annotations

from collections.abc import Callable

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import TRUE, Word, concat, ite

from ..access import load, store
from ..counters import UNPRIVILEGED
from ..exceptions import BREAKPOINT, ECALL_M, ECALL_S, ECALL_U, ECALL_VS, FETCH_MISALIGNED, ILLEGAL
from ..state import MACHINE, SUPERVISOR, XLEN, Rv64

RV64I = f"{UNPRIVILEGED}, RV64I"
Operation = Callable[[Word, Word], Word]


def _flag(condition: Word) -> Word:
    return condition.zero_extend(XLEN)


def _amount(value: Word) -> Word:
    """A shift takes the low six bits, or five of a 32-bit one."""
    return value & (63 if value.width == 64 else 31)


OPERATIONS: dict[str, Operation] = {
    "ADD": lambda a, b: a + b,
    "SUB": lambda a, b: a - b,
    "SLL": lambda a, b: a << _amount(b),
    "SLT": lambda a, b: _flag(a.signed_lt(b)),
    "SLTU": lambda a, b: _flag(a < b),
    "XOR": lambda a, b: a ^ b,
    "SRL": lambda a, b: a >> _amount(b),
    "SRA": lambda a, b: a.arithmetic_shift_right(_amount(b)),
    "OR": lambda a, b: a | b,
    "AND": lambda a, b: a & b,
}
BRANCHES: dict[str, Operation] = {
    "BEQ": lambda a, b: a == b,
    "BNE": lambda a, b: a != b,
    "BLT": lambda a, b: a.signed_lt(b),
    "BGE": lambda a, b: ~a.signed_lt(b),
    "BLTU": lambda a, b: a < b,
    "BGEU": lambda a, b: a >= b,
}
LOADS = {"LB": (1, True), "LH": (2, True), "LW": (4, True), "LD": (8, True), "LBU": (1, False), "LHU": (2, False),
         "LWU": (4, False)}  # fmt: skip
STORES = {"SB": 1, "SH": 2, "SW": 4, "SD": 8}
ONLY_64 = ("LD", "LWU", "SD")


def add(machine: Machine[Rv64]) -> None:
    """Declare them."""
    _operations(machine)
    _constants(machine)
    _transfers(machine)
    _storage(machine)
    _others(machine)


def narrow(operation: Operation, a: Word, b: Word) -> Word:
    """On the low halves, the result sign-extended."""
    return operation(a.truncate(32), b.truncate(32)).sign_extend(XLEN)


def computed(cpu: Rv64, operation: Operation, a: Word, b: Word) -> Word:
    """A result; where the mode has 32 bits, of the low halves."""
    return narrow(operation, a, b) if cpu.is_narrow else operation(a, b)


def needs_64(cpu: Rv64) -> None:
    """What RV32 does not have is illegal where the mode has 32 bits, for a guest too."""
    if cpu.is_narrow:
        raise Fault(ILLEGAL)


def jump(cpu: Rv64, target: Word, taken: Word = TRUE) -> None:
    """Go on at the target; without C it must be a multiple of 4."""
    target = cpu.extended(target)
    if taken & ~cpu.misa.c & target[1]:
        raise Fault(FETCH_MISALIGNED, target)
    cpu.pc = ite(taken, target, cpu.pc)


def _operations(machine: Machine[Rv64]) -> None:
    def registers(cpu: Rv64, rd: Word, rs1: Word, rs2: Word, operation: Operation) -> None:
        """rd := rs1 op rs2."""
        cpu.write_x(rd, computed(cpu, operation, cpu.read_x(rs1), cpu.read_x(rs2)))

    def immediate(cpu: Rv64, rd: Word, rs1: Word, imm: Word, operation: Operation) -> None:
        """rd := rs1 op immediate.  RV32 has no shift by more than 31."""
        extended = imm.sign_extend(XLEN) if imm.width == 12 else imm.zero_extend(XLEN)
        if imm.width == 6 and cpu.is_narrow & imm[5]:
            raise Fault(ILLEGAL)
        cpu.write_x(rd, computed(cpu, operation, cpu.read_x(rs1), extended))

    def word_registers(cpu: Rv64, rd: Word, rs1: Word, rs2: Word, operation: Operation) -> None:
        """rd := rs1 op rs2, on the low halves."""
        needs_64(cpu)
        cpu.write_x(rd, narrow(operation, cpu.read_x(rs1), cpu.read_x(rs2)))

    def word_immediate(cpu: Rv64, rd: Word, rs1: Word, imm: Word, operation: Operation) -> None:
        """rd := rs1 op immediate, on the low halves."""
        needs_64(cpu)
        extended = imm.sign_extend(XLEN) if imm.width == 12 else imm.zero_extend(XLEN)
        cpu.write_x(rd, narrow(operation, cpu.read_x(rs1), extended))

    declare = machine.instruction
    for name, operation in OPERATIONS.items():
        declare(f"{name} rd, rs1, rs2", source=RV64I, operation=operation)(registers)
        shift = name in ("SLL", "SRL", "SRA")
        if shift:
            declare(f"{name}I rd, rs1, shamt", source=RV64I, operation=operation)(immediate)
        elif name != "SUB":
            immediate_name = "SLTIU" if name == "SLTU" else f"{name}I"
            declare(f"{immediate_name} rd, rs1, imm", source=RV64I, operation=operation)(immediate)
        if shift or name in ("ADD", "SUB"):
            declare(f"{name}W rd, rs1, rs2", source=RV64I, operation=operation)(word_registers)
        if shift:
            declare(f"{name}IW rd, rs1, shamtw", source=RV64I, operation=operation)(word_immediate)
    declare("ADDIW rd, rs1, imm", source=RV64I, operation=OPERATIONS["ADD"])(word_immediate)


def _constants(machine: Machine[Rv64]) -> None:
    @machine.instruction("LUI rd, upper", source=RV64I)
    def lui(cpu: Rv64, rd: Word, upper: Word) -> None:
        """rd := immediate in bits 31:12, sign-extended."""
        cpu.write_x(rd, concat(upper, Word(12, 0)).sign_extend(XLEN))

    @machine.instruction("AUIPC rd, upper", source=RV64I)
    def auipc(cpu: Rv64, rd: Word, upper: Word) -> None:
        """rd := pc + immediate in bits 31:12."""
        cpu.write_x(rd, cpu.pc - 4 + concat(upper, Word(12, 0)).sign_extend(XLEN))


def _transfers(machine: Machine[Rv64]) -> None:
    def offset(value: Word) -> Word:
        return concat(value, Word(1, 0)).sign_extend(XLEN)

    @machine.instruction("JAL rd, jump", source=RV64I)
    def jal(cpu: Rv64, rd: Word, distance: Word) -> None:
        """rd := return address; jump."""
        following = cpu.pc
        jump(cpu, following - 4 + offset(distance))
        cpu.write_x(rd, following)

    @machine.instruction("JALR rd, offset(rs1)", source=RV64I)
    def jalr(cpu: Rv64, rd: Word, where: tuple[Word, Word]) -> None:
        """rd := return address; jump to the register plus offset, bit 0 cleared."""
        following = cpu.pc
        jump(cpu, _address(cpu, where).replace(0, 0, 0))
        cpu.write_x(rd, following)

    def branch(cpu: Rv64, rs1: Word, rs2: Word, distance: Word, condition: Operation) -> None:
        """Branch if the comparison holds."""
        a, b = cpu.extended(cpu.read_x(rs1)), cpu.extended(cpu.read_x(rs2))
        jump(cpu, cpu.pc - 4 + offset(distance), condition(a, b))

    for name, condition in BRANCHES.items():
        machine.instruction(f"{name} rs1, rs2, branch", source=RV64I, condition=condition)(branch)


def _address(cpu: Rv64, where: tuple[Word, Word]) -> Word:
    offset, base = where
    return cpu.read_x(base) + offset.sign_extend(XLEN)


def _place(cpu: Rv64, where: tuple[Word, Word]) -> Word:
    return cpu.effective(_address(cpu, where))


def _storage(machine: Machine[Rv64]) -> None:
    def loads(cpu: Rv64, rd: Word, where: tuple[Word, Word], size: int, signed: bool, only_64: bool) -> None:
        """rd := storage."""
        if only_64:
            needs_64(cpu)
        value = load(cpu, _place(cpu, where), size)
        cpu.write_x(rd, value.sign_extend(XLEN) if signed else value.zero_extend(XLEN))

    def stores(cpu: Rv64, rs2: Word, where: tuple[Word, Word], size: int, only_64: bool) -> None:
        """Storage := rs2."""
        if only_64:
            needs_64(cpu)
        store(cpu, _place(cpu, where), cpu.read_x(rs2).truncate(8 * size))

    for name, (size, signed) in LOADS.items():
        declare = machine.instruction(
            f"{name} rd, offset(rs1)", source=RV64I, size=size, signed=signed, only_64=name in ONLY_64
        )
        declare(loads)
    for name, size in STORES.items():
        declare = machine.instruction(
            f"{name} rs2, offset(rs1)", source=RV64I, size=size, only_64=name in ONLY_64
        )
        declare(stores)


def _others(machine: Machine[Rv64]) -> None:
    def nothing(cpu: Rv64) -> None:
        """Order storage references, or pause: nothing that one hart could see."""

    machine.instruction("FENCE", source=RV64I)(nothing)
    machine.instruction("PAUSE", source=f"{UNPRIVILEGED}, Zihintpause")(nothing)
    machine.instruction("FENCE.I", source=f"{UNPRIVILEGED}, Zifencei")(nothing)

    @machine.instruction("ECALL", source=RV64I)
    def ecall(cpu: Rv64) -> None:
        """Trap in every mode; the cause tells which, but not VU from U."""
        if cpu.prv == MACHINE:
            raise Fault(ECALL_M)
        if cpu.prv == SUPERVISOR:
            raise Fault(ECALL_VS if cpu.v else ECALL_S)
        raise Fault(ECALL_U)

    @machine.instruction("EBREAK", source=RV64I)
    def ebreak(cpu: Rv64) -> None:
        """Trap in every mode."""
        raise Fault(BREAKPOINT, cpu.extended(cpu.pc - 4))
