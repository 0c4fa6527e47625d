"""KS10: internal input and output.  Illegal in user mode without User In-out."""

from __future__ import annotations

from collections.abc import Callable

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.words import FALSE, Word, concat, ite

from .encoding import DEVICES, OPCODES, io_code, ks10_code
from .ks10_state import Ks10
from .state import MANUAL_KS, MUUO, WORD, instruction_word, right


def add(machine: Machine[Ks10]) -> None:
    """Declare them."""
    _processor(machine)
    _interrupts(machine)
    _paging(machine)
    _previous_context(machine)


def _allowed(cpu: Ks10, code: int | Word, e: Word) -> None:
    """The monitor's business in user mode, unless User In-out is set."""
    if cpu.restricted:
        word = Word(13, code) if isinstance(code, int) else code
        raise Fault(MUUO, instruction_word(word, e), keeps=True)


def _skips(machine: Machine[Ks10], device: str, source: str, read: Callable[[Ks10], Word]) -> None:
    @machine.instruction(f"CONSZ {device}, E", source=source)
    def consz(cpu: Ks10, e: Word) -> None:
        """Skip if the conditions that E selects are all 0."""
        _allowed(cpu, io_code("CONSZ", DEVICES[device]), e)
        cpu.pc = ite((right(read(cpu)) & e) == 0, cpu.pc + 1, cpu.pc)

    @machine.instruction(f"CONSO {device}, E", source=source)
    def conso(cpu: Ks10, e: Word) -> None:
        """Skip if a condition that E selects is 1."""
        _allowed(cpu, io_code("CONSO", DEVICES[device]), e)
        cpu.pc = ite((right(read(cpu)) & e) != 0, cpu.pc + 1, cpu.pc)


def _processor(machine: Machine[Ks10]) -> None:
    source = f"{MANUAL_KS}, KS10 processor conditions"
    interrupt_console = 6  # bit 25: a flag that clears itself

    def conditions(cpu: Ks10) -> Word:
        requested = (cpu.apr_flags & cpu.apr_enabled) != 0
        low = concat(Word(6, 0), cpu.apr_flags, requested, cpu.apr_channel)
        return concat(Word(6, 0), cpu.apr_enabled, Word(4, 0), low)

    @machine.instruction("APRID E", source=source)
    def aprid(cpu: Ks10, e: Word) -> None:
        """C(E) := microcode and serial number."""
        _allowed(cpu, ks10_code("APRID"), e)
        cpu.store(e, cpu.apr_id)

    @machine.instruction("WRAPR E", source=source)
    def wrapr(cpu: Ks10, e: Word) -> None:
        """Enable, disable, clear and set the selected conditions, assign the channel."""
        _allowed(cpu, ks10_code("WRAPR"), e)
        selected, none = e[11:4], Word(8, 0)
        cpu.apr_channel = e[2:0]
        enabled = cpu.apr_enabled | ite(e[15], selected, none)
        cpu.apr_enabled = enabled & ~ite(e[14], selected, none)
        flags = cpu.apr_flags & ~ite(e[13], selected, none)
        flags = flags | ite(e[12], selected, none)
        cpu.apr_flags = flags.replace(interrupt_console, interrupt_console, 0)

    @machine.instruction("RDAPR E", source=source)
    def rdapr(cpu: Ks10, e: Word) -> None:
        """C(E) := enabled conditions,,conditions and channel."""
        _allowed(cpu, ks10_code("RDAPR"), e)
        cpu.store(e, conditions(cpu))

    _skips(machine, "APR", source, conditions)


def _interrupts(machine: Machine[Ks10]) -> None:
    source = f"{MANUAL_KS}, KS10 priority interrupt"

    def conditions(cpu: Ks10) -> Word:
        low = concat(cpu.pi_active, cpu.pi_on, cpu.pi_enabled)
        return concat(Word(11, 0), cpu.pi_requests, Word(3, 0), low)

    @machine.instruction("WRPI E", source=source)
    def wrpi(cpu: Ks10, e: Word) -> None:
        """Clear the system, request, turn channels and the system on and off; bits 18 to 21 must be 0."""
        _allowed(cpu, ks10_code("WRPI"), e)
        if e[17:14] != 0:
            raise Fault(MUUO, instruction_word(Word(13, ks10_code("WRPI")), e), keeps=True)
        selected, none, clear = e[6:0], Word(7, 0), e[12]
        requests = ite(clear, none, cpu.pi_requests) & ~ite(e[13], selected, none)
        enabled = ite(clear, none, cpu.pi_enabled) | ite(e[10], selected, none)
        cpu.pi_active = ite(clear, none, cpu.pi_active)
        cpu.pi_requests = requests | ite(e[11], selected, none)
        cpu.pi_enabled = enabled & ~ite(e[9], selected, none)
        cpu.pi_on = ite(e[8], FALSE, (cpu.pi_on & ~clear) | e[7])

    @machine.instruction("RDPI E", source=source)
    def rdpi(cpu: Ks10, e: Word) -> None:
        """C(E) := requests,,active channels, system on, enabled channels."""
        _allowed(cpu, ks10_code("RDPI"), e)
        cpu.store(e, conditions(cpu))

    _skips(machine, "PI", source, conditions)


def _paging(machine: Machine[Ks10]) -> None:
    source = f"{MANUAL_KS}, KS10 paging"

    @machine.instruction("RDUBR E", source=source)
    def rdubr(cpu: Ks10, e: Word) -> None:
        """C(E) := accumulator blocks and user base."""
        _allowed(cpu, ks10_code("RDUBR"), e)
        cpu.store(e, cpu.context_word)

    @machine.instruction("WRUBR E", source=source)
    def wrubr(cpu: Ks10, e: Word) -> None:
        """Accumulator blocks and user base := C(E), each if its load bit is set."""
        _allowed(cpu, ks10_code("WRUBR"), e)
        value = cpu.load(e)
        if value[35] & (value[29:24] != 0):
            raise NotModelledError("accumulator blocks other than 0")
        changes = value[33]
        cpu.ubr = ite(changes, value[10:0], cpu.ubr)
        process, now = cpu.process_map.load(cpu.ubr), changes & cpu.flags.user
        cpu.bound = ite(now, process[19:11], cpu.bound)
        cpu.base = ite(now, process[10:0], cpu.base)

    @machine.instruction("RDEBR E", source=source)
    def rdebr(cpu: Ks10, e: Word) -> None:
        """C(E) := paging enable and executive base."""
        _allowed(cpu, ks10_code("RDEBR"), e)
        cpu.store(e, concat(cpu.paging, Word(2, 0), cpu.ebr).zero_extend(WORD))

    @machine.instruction("WREBR E", source=source)
    def wrebr(cpu: Ks10, e: Word) -> None:
        """Paging enable and executive base := E."""
        _allowed(cpu, ks10_code("WREBR"), e)
        if e[14]:
            raise NotModelledError("TOPS-20 paging")
        cpu.paging, cpu.ebr = e[13], e[10:0]

    @machine.instruction("CLRPT E", source=source)
    def clrpt(cpu: Ks10, e: Word) -> None:
        """Forget the translation of E; translations are not kept here."""
        _allowed(cpu, ks10_code("CLRPT"), e)

    @machine.instruction("RDHSB E", source=source)
    def rdhsb(cpu: Ks10, e: Word) -> None:
        """C(E) := address of the halt status block."""
        _allowed(cpu, ks10_code("RDHSB"), e)
        cpu.store(e, cpu.halt_status.zero_extend(WORD))

    @machine.instruction("WRHSB E", source=source)
    def wrhsb(cpu: Ks10, e: Word) -> None:
        """Address of the halt status block := C(E)."""
        _allowed(cpu, ks10_code("WRHSB"), e)
        cpu.halt_status = cpu.load(e)[19:0]


def _previous_context(machine: Machine[Ks10]) -> None:
    source = f"{MANUAL_KS}, KS10 previous context"

    @machine.instruction("UMOVE AC, E", source=source)
    def umove(cpu: Ks10, ac: Word, e: Word) -> None:
        """AC := C(E) in the previous context."""
        _allowed(cpu, concat(Word(9, OPCODES["UMOVE"]), ac), e)
        cpu.ac[ac] = cpu.load_previous(e)

    @machine.instruction("UMOVEM AC, E", source=source)
    def umovem(cpu: Ks10, ac: Word, e: Word) -> None:
        """C(E) in the previous context := AC."""
        _allowed(cpu, concat(Word(9, OPCODES["UMOVEM"]), ac), e)
        cpu.store_previous(e, cpu.ac[ac])
