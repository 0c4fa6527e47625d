"""KA10: input and output (manual, input-output, priority interrupt, processor conditions, time sharing).

All of it is illegal in user mode, unless User In-out is set.
"""

from __future__ import annotations

from collections.abc import Callable

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, Word, concat, ite

from .encoding import DEVICES, FUNCTIONS
from .ka10_state import Ka10
from .state import MANUAL_KA, MUUO, WORD, instruction_word, right


def add(machine: Machine[Ka10]) -> None:
    """Declare them."""
    _processor(machine)
    _interrupts(machine)
    _devices(machine)


def _allowed(cpu: Ka10, function: str, device: Word, e: Word) -> None:
    """The monitor's business in user mode, unless User In-out is set."""
    if cpu.restricted:
        code = concat(Word(3, 7), device, Word(3, FUNCTIONS[function]))
        raise Fault(MUUO, instruction_word(code, e), keeps=True)


def _device(name: str) -> Word:
    return Word(7, DEVICES[name])


def _skips(machine: Machine[Ka10], device: str, source: str, read: Callable[[Ka10], Word]) -> None:
    """CONI, CONSZ and CONSO of a device whose conditions `read` gives."""

    @machine.instruction(f"CONI {device}, E", source=source)
    def coni(cpu: Ka10, e: Word) -> None:
        """C(E) := conditions."""
        _allowed(cpu, "CONI", _device(device), e)
        cpu.store(e, read(cpu))

    @machine.instruction(f"CONSZ {device}, E", source=source)
    def consz(cpu: Ka10, e: Word) -> None:
        """Skip if the conditions that E selects are all 0."""
        _allowed(cpu, "CONSZ", _device(device), e)
        cpu.pc = ite((right(read(cpu)) & e) == 0, cpu.pc + 1, cpu.pc)

    @machine.instruction(f"CONSO {device}, E", source=source)
    def conso(cpu: Ka10, e: Word) -> None:
        """Skip if a condition that E selects is 1."""
        _allowed(cpu, "CONSO", _device(device), e)
        cpu.pc = ite((right(read(cpu)) & e) != 0, cpu.pc + 1, cpu.pc)


def _processor(machine: Machine[Ka10]) -> None:
    source = f"{MANUAL_KA}, processor conditions"

    def conditions(cpu: Ka10) -> Word:
        apr, flags, no = cpu.apr, cpu.flags, Word(1, 0)
        low = concat(
            no, cpu.pushdown_overflow, flags.user_io, apr.address_break, apr.memory_protection,
            apr.nonexistent_memory, no, apr.clock_enabled, apr.clock, no, apr.floating_overflow_enabled,
            flags.floating_overflow, no, apr.overflow_enabled, flags.overflow, apr.channel,
        )  # fmt: skip
        return low.zero_extend(WORD)

    @machine.instruction("CONO APR, E", source=source)
    def cono(cpu: Ka10, e: Word) -> None:
        """Clear and enable conditions, assign the channel."""
        _allowed(cpu, "CONO", _device("APR"), e)
        apr, flags = cpu.apr, cpu.flags
        cpu.pushdown_overflow = cpu.pushdown_overflow & ~e[17]
        cpu.device_conditions = ite(e[16], Word(WORD, 0), cpu.device_conditions)
        apr.address_break = apr.address_break & ~e[14]
        apr.memory_protection = apr.memory_protection & ~e[13]
        apr.nonexistent_memory = apr.nonexistent_memory & ~e[12]
        apr.clock_enabled = apr.clock_enabled & ~e[11] | e[10]
        apr.clock = apr.clock & ~e[9]
        apr.floating_overflow_enabled = apr.floating_overflow_enabled & ~e[8] | e[7]
        flags.floating_overflow = flags.floating_overflow & ~e[6]
        apr.overflow_enabled = apr.overflow_enabled & ~e[5] | e[4]
        flags.overflow = flags.overflow & ~e[3]
        apr.channel = e[2:0]

    @machine.instruction("DATAO APR, E", source=f"{MANUAL_KA}, time sharing")
    def datao(cpu: Ka10, e: Word) -> None:
        """Protection register := bits 0 to 7 of C(E), relocation register := bits 18 to 25."""
        _allowed(cpu, "DATAO", _device("APR"), e)
        value, user = cpu.load(e), cpu.flags.user
        bound, base = value[35:28], value[17:10]
        cpu.user_bound, cpu.user_base = bound, base
        cpu.bound, cpu.base = ite(user, bound, cpu.bound), ite(user, base, cpu.base)

    @machine.instruction("DATAI APR, E", source=source)
    def datai(cpu: Ka10, e: Word) -> None:
        """C(E) := the console's data switches."""
        _allowed(cpu, "DATAI", _device("APR"), e)
        cpu.store(e, cpu.switches)

    _skips(machine, "APR", source, conditions)


def _interrupts(machine: Machine[Ka10]) -> None:
    source = f"{MANUAL_KA}, priority interrupt"

    def conditions(cpu: Ka10) -> Word:
        return concat(cpu.pi_active, cpu.pi_on, cpu.pi_enabled).zero_extend(WORD)

    @machine.instruction("CONO PI, E", source=source)
    def cono(cpu: Ka10, e: Word) -> None:
        """Clear the system, request, turn channels and the system on and off."""
        _allowed(cpu, "CONO", _device("PI"), e)
        selected, none = e[6:0], Word(7, 0)
        clear = e[12]
        active, enabled = ite(clear, none, cpu.pi_active), ite(clear, none, cpu.pi_enabled)
        requests, on = ite(clear, none, cpu.pi_requests), cpu.pi_on & ~clear
        requests = requests | ite(e[11], selected, none)
        enabled = enabled | ite(e[10], selected, none)
        enabled = enabled & ~ite(e[9], selected, none)
        cpu.pi_active, cpu.pi_enabled, cpu.pi_requests = active, enabled, requests
        cpu.pi_on = ite(e[8], FALSE, on | e[7])

    _skips(machine, "PI", source, conditions)


def _devices(machine: Machine[Ka10]) -> None:
    source = f"{MANUAL_KA}, input-output"

    @machine.instruction("DATAI D, E", source=source)
    def datai(cpu: Ka10, device: Word, e: Word) -> None:
        """C(E) := data of the device."""
        _allowed(cpu, "DATAI", device, e)
        cpu.store(e, cpu.device_data)

    @machine.instruction("DATAO D, E", source=source)
    def datao(cpu: Ka10, device: Word, e: Word) -> None:
        """Data of the device := C(E)."""
        _allowed(cpu, "DATAO", device, e)
        cpu.device_data = cpu.load(e)

    @machine.instruction("BLKI D, E", source=source)
    def blki(cpu: Ka10, device: Word, e: Word) -> None:
        """Count the pointer in E up, data of the device to where it points; skip unless the count ran out."""
        _allowed(cpu, "BLKI", device, e)
        pointer, over = cpu.count_up(cpu.load(e))
        cpu.store(e, pointer)
        cpu.store(right(pointer), cpu.device_data)
        cpu.pc = ite(over, cpu.pc, cpu.pc + 1)

    @machine.instruction("BLKO D, E", source=source)
    def blko(cpu: Ka10, device: Word, e: Word) -> None:
        """Count the pointer in E up, the word it points to to the device; skip unless the count ran out."""
        _allowed(cpu, "BLKO", device, e)
        pointer, over = cpu.count_up(cpu.load(e))
        cpu.store(e, pointer)
        cpu.device_data = cpu.load(right(pointer))
        cpu.pc = ite(over, cpu.pc, cpu.pc + 1)

    @machine.instruction("CONO D, E", source=source)
    def cono(cpu: Ka10, device: Word, e: Word) -> None:
        """Conditions of the device := E."""
        _allowed(cpu, "CONO", device, e)
        cpu.device_conditions = e.zero_extend(WORD)

    @machine.instruction("CONI D, E", source=source)
    def coni(cpu: Ka10, device: Word, e: Word) -> None:
        """C(E) := conditions of the device."""
        _allowed(cpu, "CONI", device, e)
        cpu.store(e, cpu.device_conditions)

    @machine.instruction("CONSZ D, E", source=source)
    def consz(cpu: Ka10, device: Word, e: Word) -> None:
        """Skip if the conditions that E selects are all 0."""
        _allowed(cpu, "CONSZ", device, e)
        cpu.pc = ite((right(cpu.device_conditions) & e) == 0, cpu.pc + 1, cpu.pc)

    @machine.instruction("CONSO D, E", source=source)
    def conso(cpu: Ka10, device: Word, e: Word) -> None:
        """Skip if a condition that E selects is 1."""
        _allowed(cpu, "CONSO", device, e)
        cpu.pc = ite((right(cpu.device_conditions) & e) != 0, cpu.pc + 1, cpu.pc)
