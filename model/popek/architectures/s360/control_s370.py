"""Instructions that System/370 added (GA22-7000, "Control Instructions" and "General Instructions")."""

from __future__ import annotations

from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.words import Word, concat, ite

from . import interruptions as program
from .arithmetic import even, pair, set_pair
from .control import IO_SOURCE, halt, start, test
from .control import SOURCE as CONTROL
from .general import SOURCE as GENERAL
from .operands import declare
from .s370_state import S370
from .state import ADDRESS, OFFSET, Address

CHANNEL_ID: Final = 168  # real address


def declare_s370(machine: Machine[S370]) -> None:
    """Everything that the Model 67 does not have."""
    _general(machine)
    _system_mask(machine)
    _psw_key(machine)
    _control_registers(machine)
    _storage(machine)
    _clocks(machine)
    _identity(machine)
    _input_output(machine)


def _general(machine: Machine[S370]) -> None:
    @declare(machine, "CS R1,R3,D2(B2)", source=GENERAL)
    def compare_and_swap(cpu: S370, r1: Word, r3: Word, second: Address) -> None:
        """If R1 equals the word, the word := R3; otherwise R1 := the word."""
        places = cpu.locate(cpu.effective(second), 4, store=True, unit=4, integral=True)
        old = cpu.read(places)
        equal = cpu.gr[r1] == old
        cpu.write(places, ite(equal, cpu.gr[r3], old))
        cpu.gr[r1] = ite(equal, cpu.gr[r1], old)
        cpu.psw.cc = (~equal).zero_extend(2)

    @declare(machine, "CDS R1,R3,D2(B2)", source=GENERAL)
    def compare_double_and_swap(cpu: S370, r1: Word, r3: Word, second: Address) -> None:
        """If the pair R1 equals the doubleword, that := the pair R3; otherwise the pair R1 := it."""
        even(r1)
        even(r3)
        places = cpu.locate(cpu.effective(second), 8, store=True, unit=8, integral=True)
        old, new = cpu.read(places), pair(cpu, r3)
        equal = pair(cpu, r1) == old
        cpu.write(places, ite(equal, new, old))
        set_pair(cpu, r1, ite(equal, pair(cpu, r1), old))
        cpu.psw.cc = (~equal).zero_extend(2)

    @declare(machine, "STCK D2(B2)", source=GENERAL)
    def store_clock(cpu: S370, second: Address) -> None:
        """The doubleword := the time-of-day clock; condition code := its state."""
        running = cpu.tod.state <= 1
        cpu.store(second, ite(running, cpu.tod.value, Word(64, 0)), unit=1)
        cpu.psw.cc = cpu.tod.state

    @declare(machine, "MC D1(B1),I2", source=GENERAL)
    def monitor_call(cpu: S370, first: Address, number: Word) -> None:
        """The monitor-event interruption, where control register 8 enables the class."""
        if number[7:4] != 0:
            raise program.exception(program.SPECIFICATION)
        enabled = cpu.cr8.monitor_masks << (number[3:0]).zero_extend(16)
        if enabled[15]:
            raise Fault(program.MONITOR_EVENT, concat(number[3:0], cpu.effective(first)), keeps=True)


def _system_mask(machine: Machine[S370]) -> None:
    @declare(machine, "SSM D2(B2)", source=CONTROL, privileged=True)
    def set_system_mask(cpu: S370, second: Address) -> None:
        """PSW bits 0-7 := the byte; control register 0 can forbid it."""
        if cpu.cr0.ssm_suppression:
            raise program.exception(program.SPECIAL_OPERATION)
        cpu.load_system_mask(cpu.fetch(second, 1))

    @declare(machine, "STNSM D1(B1),I2", source=CONTROL, privileged=True)
    def store_then_and_system_mask(cpu: S370, first: Address, mask: Word) -> None:
        """The byte := PSW bits 0-7, which are then ANDed with I2."""
        old = cpu.system_mask
        cpu.store(first, old)
        cpu.load_system_mask(old & mask)

    @declare(machine, "STOSM D1(B1),I2", source=CONTROL, privileged=True)
    def store_then_or_system_mask(cpu: S370, first: Address, mask: Word) -> None:
        """The byte := PSW bits 0-7, which are then ORed with I2."""
        old = cpu.system_mask
        cpu.store(first, old)
        cpu.load_system_mask(old | mask)


def _psw_key(machine: Machine[S370]) -> None:
    @declare(machine, "SPKA D2(B2)", source=CONTROL)
    def set_psw_key_from_address(cpu: S370, second: Address) -> None:
        """The PSW key := bits 24-27 of the address.

        Privileged; with dual address space, the problem state may set the keys that the PSW-key mask lists.
        """
        key = cpu.effective(second)[7:4]
        listed = (cpu.cr3.psw_key_mask << key.zero_extend(16))[15]
        if cpu.psw.problem & ~(cpu.dual_address_space & listed):
            raise program.exception(program.PRIVILEGED_OPERATION)
        cpu.psw.key = key

    @declare(machine, "IPK", source=CONTROL)
    def insert_psw_key(cpu: S370) -> None:
        """Bits 24-31 of general register 2 := the PSW key and zeros.

        Privileged; with dual address space, allowed in the problem state under extraction authority.
        """
        if cpu.psw.problem & ~(cpu.dual_address_space & cpu.cr0.extraction_authority):
            raise program.exception(program.PRIVILEGED_OPERATION)
        cpu.gr[2] = cpu.gr[2].replace(7, 0, concat(cpu.psw.key, Word(4, 0)))


def _control_registers(machine: Machine[S370]) -> None:
    for name, count in (("R1,R3=R1", 1), ("R1,R3=R1+1", 2)):

        @declare(machine, f"LCTL {name},D2(B2)", source=CONTROL, privileged=True, count=count)
        def load_control(cpu: S370, r1: Word, second: Address, count: int) -> None:
            """Control registers R1 through R3 := consecutive words."""
            words = cpu.fetch(second, 4 * count, unit=4, integral=True)
            format_before, table_before = cpu.cr0.translation_format, cpu.cr1
            for i in range(count):
                low = 32 * (count - 1 - i)
                cpu.cr[r1 + i] = words[low + 31 : low]
            if (cpu.cr0.translation_format != format_before) | (cpu.cr1 != table_before):
                raise NotModelledError("control registers 0 and 1 designate other translation tables")

        @declare(machine, f"STCTL {name},D2(B2)", source=CONTROL, privileged=True, count=count)
        def store_control(cpu: S370, r1: Word, second: Address, count: int) -> None:
            """Consecutive words := control registers R1 through R3."""
            values = concat(*(cpu.cr[r1 + i] for i in range(count)))
            cpu.store(second, values, unit=4, integral=True)


def _storage(machine: Machine[S370]) -> None:
    @declare(machine, "PTLB", source=CONTROL, privileged=True)
    def purge_tlb(cpu: S370) -> None:
        """No translation is in use any more that the tables do not give."""
        cpu.tlb_stale = Word(1, 0)

    @declare(machine, "RRB D2(B2)", source=CONTROL, privileged=True)
    def reset_reference_bit(cpu: S370, second: Address) -> None:
        """The reference bit of the block at a real address := 0; condition code := R and C as they were."""
        block = cpu.key_block(cpu.effective(second))
        key = cpu.keys.load(block)
        cpu.keys = cpu.keys.store(block, key.replace(1, 1, 0))
        cpu.psw.cc = key[1:0]

    @declare(machine, "SPX D2(B2)", source=CONTROL, privileged=True)
    def set_prefix(cpu: S370, second: Address) -> None:
        """The prefix := bits 8-19 of the word, if that page exists; the lookaside buffer is purged."""
        page = cpu.fetch(second, 4, integral=True)[ADDRESS - 1 : OFFSET + 1]
        if concat(page, Word(1, 0)) > cpu.last_block:
            raise Fault(program.ADDRESSING, memory=True, keeps=True)
        cpu.prefix, cpu.tlb_stale = page, Word(1, 0)

    @declare(machine, "STPX D2(B2)", source=CONTROL, privileged=True)
    def store_prefix(cpu: S370, second: Address) -> None:
        """The word := the prefix."""
        value = concat(Word(8, 0), cpu.prefix, Word(OFFSET + 1, 0))
        cpu.store(second, value, integral=True)


def _clocks(machine: Machine[S370]) -> None:
    @declare(machine, "SCK D2(B2)", source=CONTROL, privileged=True)
    def set_clock(cpu: S370, second: Address) -> None:
        """The time-of-day clock := the doubleword, unless it is secure or does not operate."""
        value = cpu.fetch(second, 8, integral=True)
        dead = cpu.tod.state == 3
        kept = dead | cpu.tod.secure
        cpu.psw.cc = ite(dead, Word(2, 3), cpu.tod.secure.zero_extend(2))
        cpu.tod.value = ite(kept, cpu.tod.value, value)
        cpu.tod.state = ite(kept, cpu.tod.state, Word(2, 0))

    @declare(machine, "SCKC D2(B2)", source=CONTROL, privileged=True)
    def set_clock_comparator(cpu: S370, second: Address) -> None:
        """The clock comparator := the doubleword."""
        cpu.clock_comparator = cpu.fetch(second, 8, integral=True)

    @declare(machine, "STCKC D2(B2)", source=CONTROL, privileged=True)
    def store_clock_comparator(cpu: S370, second: Address) -> None:
        """The doubleword := the clock comparator."""
        cpu.store(second, cpu.clock_comparator, integral=True)

    @declare(machine, "SPT D2(B2)", source=CONTROL, privileged=True)
    def set_cpu_timer(cpu: S370, second: Address) -> None:
        """The CPU timer := the doubleword."""
        cpu.cpu_timer = cpu.fetch(second, 8, integral=True)

    @declare(machine, "STPT D2(B2)", source=CONTROL, privileged=True)
    def store_cpu_timer(cpu: S370, second: Address) -> None:
        """The doubleword := the CPU timer."""
        cpu.store(second, cpu.cpu_timer, integral=True)


def _identity(machine: Machine[S370]) -> None:
    @declare(machine, "STIDP D2(B2)", source=CONTROL, privileged=True)
    def store_cpu_id(cpu: S370, second: Address) -> None:
        """The doubleword := version, serial number, model and length of the machine-check logout."""
        cpu.store(second, cpu.cpu_id, integral=True)

    @declare(machine, "STAP D2(B2)", source=CONTROL, privileged=True)
    def store_cpu_address(cpu: S370, second: Address) -> None:
        """The halfword := the CPU's number in the installation."""
        cpu.store(second, cpu.cpu_address, integral=True)

    @declare(machine, "SIGP R1,R3,D2(B2)", source=CONTROL, privileged=True)
    def signal_processor(cpu: S370, r1: Word, r3: Word, second: Address) -> None:
        """Send an order to a CPU; there is only this one, to which nothing but SENSE is modelled."""
        if cpu.gr[r3].truncate(16) != cpu.cpu_address:
            cpu.psw.cc = Word(2, 3)
        elif cpu.effective(second)[7:0] == 1:
            cpu.psw.cc = Word(2, 0)
        else:
            raise NotModelledError("an order other than SENSE that a CPU gives itself")


def _input_output(machine: Machine[S370]) -> None:
    @declare(machine, "SIOF D2(B2)", source=IO_SOURCE, privileged=True)
    def start_io_fast_release(cpu: S370, second: Address) -> None:
        """As SIO."""
        start(cpu, second)

    @declare(machine, "CLRIO D2(B2)", source=IO_SOURCE, privileged=True)
    def clear_io(cpu: S370, second: Address) -> None:
        """As TIO."""
        test(cpu, second)

    @declare(machine, "HDV D2(B2)", source=IO_SOURCE, privileged=True)
    def halt_device(cpu: S370, second: Address) -> None:
        """As HIO."""
        halt(cpu, second)

    @declare(machine, "STIDC D2(B2)", source=IO_SOURCE, privileged=True)
    def store_channel_id(cpu: S370, second: Address) -> None:
        """Real location 168 := the channel's type and model, if it is available."""
        channel = concat(cpu.effective(second)[15:8], Word(8, 0))
        condition = cpu.devices.load(channel)[17:16]
        place = cpu.real(CHANNEL_ID, 4)
        cpu.write(place, ite(condition == 0, cpu.undefined("channel id", 32), cpu.read(place)))
        cpu.psw.cc = condition
