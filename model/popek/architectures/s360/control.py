"""Privileged instructions that both machines have (GA22-7000, "Control" and "Input/Output Operations")."""

from __future__ import annotations

from typing import Final, TypeVar

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, Word, concat, ite

from . import interruptions as program
from .operands import declare
from .state import (
    ADDRESS,
    AVAILABLE,
    BAD_FORMAT,
    CAW,
    CSW,
    ENTRY,
    GRANTED,
    NOT_OPERATIONAL,
    OFFSET,
    OUTSIDE,
    SEGMENT_LENGTH,
    STATUS_PENDING,
    WORKING,
    Address,
    Cpu,
)

C = TypeVar("C", bound=Cpu)

SOURCE: Final = "GA22-7000, System Control, Control Instructions"
IO_SOURCE: Final = "GA22-7000, Input/Output Operations, Input/Output Instructions"


def declare_control(machine: Machine[C]) -> None:
    """PSW, storage keys, real addresses, direct control, DIAGNOSE, input and output."""
    _psw_and_keys(machine)
    _lines(machine)
    _input_output(machine)


def _psw_and_keys(machine: Machine[C]) -> None:
    @declare(machine, "LPSW D2(B2)", source=SOURCE, privileged=True)
    def load_psw(cpu: C, second: Address) -> None:
        """PSW := the doubleword."""
        new = cpu.fetch(second, 8, integral=True)
        cpu.ilc = Word(2, 0)
        cpu.load_psw(new)

    @declare(machine, "SSK R1,R2", source=SOURCE, privileged=True)
    def set_storage_key(cpu: C, r1: Word, r2: Word) -> None:
        """The key of the block that R2 addresses := bits 24-30 of R1."""
        block = _key_operand(cpu, r2)
        cpu.keys = cpu.keys.store(block, cpu.gr[r1][7:1])

    @declare(machine, "ISK R1,R2", source=SOURCE, privileged=True)
    def insert_storage_key(cpu: C, r1: Word, r2: Word) -> None:
        """Bits 24-31 of R1 := the key of the block that R2 addresses, and zero."""
        key = cpu.keys.load(_key_operand(cpu, r2))
        cpu.gr[r1] = cpu.gr[r1].replace(7, 0, concat(cpu.visible_key(key), Word(1, 0)))

    @declare(machine, "LRA R1,D2(X2,B2)", source=SOURCE, privileged=True)
    def load_real_address(cpu: C, r1: Word, second: Address) -> None:
        """R1 := the real address of the operand, or that of the table entry that denies one."""
        address = cpu.effective(second)
        entry = cpu.translation.load(address[ADDRESS - 1 : OFFSET])
        status, where = entry[ENTRY - 1 : ADDRESS], entry[ADDRESS - 1 : 0]
        if status == BAD_FORMAT:
            raise Fault(program.TRANSLATION_SPECIFICATION, memory=True, keeps=True)
        if status >= OUTSIDE:
            raise Fault(program.ADDRESSING, memory=True, keeps=True)
        offset = ite(status == GRANTED, address.truncate(OFFSET), where.truncate(OFFSET))
        real = cpu.absolute_block(where[ADDRESS - 1 : OFFSET])  # prefixing undoes itself
        cpu.gr[r1] = concat(real, offset).zero_extend(32)
        cpu.psw.cc = ite(status >= SEGMENT_LENGTH, Word(2, 3), status.truncate(2))


def _key_operand(cpu: Cpu, register: Word) -> Word:
    """The absolute block that a register addresses; its bits 28-31 must be zeros."""
    address = cpu.gr[register]
    if address[3:0] != 0:
        raise program.exception(program.SPECIFICATION)
    return cpu.key_block(address.truncate(ADDRESS))


def _lines(machine: Machine[C]) -> None:
    @declare(machine, "WRD D1(B1),I2", source=SOURCE, privileged=True)
    def write_direct(cpu: C, first: Address, timing: Word) -> None:
        """Timing signals and the byte appear on the external lines."""
        cpu.direct_out = concat(timing, cpu.fetch(first, 1))

    @declare(machine, "RDD D1(B1),I2", source=SOURCE, privileged=True)
    def read_direct(cpu: C, first: Address, timing: Word) -> None:
        """Timing signals appear on the external lines; the byte := what the lines hold."""
        cpu.store(first, cpu.direct_in)
        cpu.direct_out = cpu.direct_out.replace(15, 8, timing)

    @declare(machine, "DIAGNOSE D1(B1),I2", source=SOURCE, privileged=True)
    def diagnose(cpu: C, first: Address, function: Word) -> None:
        """A model-dependent maintenance function: anything may happen to what it may reach."""
        cpu.maintenance = cpu.undefined("DIAGNOSE", 32)


def _input_output(machine: Machine[C]) -> None:
    @declare(machine, "SIO D2(B2)", source=IO_SOURCE, privileged=True)
    def start_io(cpu: C, second: Address) -> None:
        """Start the channel program that the CAW points to, if the device is available."""
        start(cpu, second)

    @declare(machine, "TIO D2(B2)", source=IO_SOURCE, privileged=True)
    def test_io(cpu: C, second: Address) -> None:
        """Condition code := where the device stands; pending status goes to the CSW."""
        test(cpu, second)

    @declare(machine, "HIO D2(B2)", source=IO_SOURCE, privileged=True)
    def halt_io(cpu: C, second: Address) -> None:
        """Terminate the operation at the device."""
        halt(cpu, second)

    @declare(machine, "TCH D2(B2)", source=IO_SOURCE, privileged=True)
    def test_channel(cpu: C, second: Address) -> None:
        """Condition code := where the channel stands."""
        channel = concat(cpu.effective(second)[15:8], Word(8, 0))
        cpu.psw.cc = cpu.devices.load(channel)[17:16]


def start(cpu: Cpu, second: Address) -> None:
    """SIO and SIOF."""
    caw = cpu.read(cpu.real(CAW, 4))
    refused = caw[27:24] != 0  # a program check: the CSW says so and nothing starts
    _device(cpu, second, available=WORKING, invalid=refused)


def test(cpu: Cpu, second: Address) -> None:
    """TIO and CLRIO."""
    _device(cpu, second, available=AVAILABLE)


def _device(cpu: Cpu, second: Address, *, available: int, invalid: Word = FALSE) -> None:
    """Condition code := where the device stands; pending status goes to the CSW and is cleared."""
    number = cpu.effective(second).truncate(16)
    device = cpu.devices.load(number)
    condition, status = device[17:16], device[15:0]
    pending = condition == STATUS_PENDING
    program_check = invalid & (condition == AVAILABLE)
    stored = pending | program_check
    place = cpu.real(CSW + 4, 2)
    new = ite(program_check, Word(16, 0x0020), status)
    cpu.write(place, ite(stored, new, cpu.read(place)))
    started = ite(program_check, condition, Word(2, available))
    after = ite(condition == AVAILABLE, started, ite(pending, Word(2, AVAILABLE), condition))
    cpu.devices = cpu.devices.store(number, concat(after, ite(pending, Word(16, 0), status)))
    cpu.psw.cc = ite(program_check, Word(2, 1), condition)


def halt(cpu: Cpu, second: Address) -> None:
    """HIO and HDV."""
    number = cpu.effective(second).truncate(16)
    device = cpu.devices.load(number)
    condition = device[17:16]
    place = cpu.real(CSW + 4, 2)
    cpu.write(place, ite(condition == AVAILABLE, Word(16, 0), cpu.read(place)))
    after = ite(condition == WORKING, Word(2, STATUS_PENDING), condition)
    cpu.devices = cpu.devices.store(number, concat(after, device[15:0]))
    codes = {AVAILABLE: 1, STATUS_PENDING: 0, WORKING: 2, NOT_OPERATIONAL: 3}
    cc = Word(2, codes[NOT_OPERATIONAL])
    for where in (AVAILABLE, STATUS_PENDING, WORKING):
        cc = ite(condition == where, Word(2, codes[where]), cc)
    cpu.psw.cc = cc
