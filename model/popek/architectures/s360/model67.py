"""System/360 Model 67 (A22-6821, IBM System/360 Principles of Operation; A27-2719, Model 67 Functional
Characteristics).

The second document was not at hand: what rests on memory alone is marked "from memory".
"""

from __future__ import annotations

from typing import Final

from popek.architectures.listing import listing
from popek.kernel.interruption import Interruption
from popek.kernel.machine import Machine, leaf_setting
from popek.kernel.outcome import NotModelledError, Trap
from popek.kernel.state import Register, WordBank, bank, bit, bits, group, register, word
from popek.kernel.words import Word, concat, ite

from . import interruptions as program
from .arithmetic import declare_arithmetic
from .asynchronous import external, input_output
from .control import SOURCE as CONTROL
from .control import declare_control
from .decimal import declare_decimal
from .deprivileging import techniques
from .general import declare_general
from .left_open import LEFT_OPEN_67
from .long_moves import declare_execute
from .operands import KINDS, declare
from .state import BLOCK, CR_NAMES, RESOURCE, Address, Cpu, Psw, relocated
from .strings import declare_strings

SOURCE: Final = "A22-6821, IBM System/360 Principles of Operation"
MODEL_67: Final = "A27-2719, System/360 Model 67 Functional Characteristics"


class Model67Psw(Psw):
    """The PSW's further field of System/360."""

    ascii = word(1, role=RESOURCE)  # bit 12: codes of decimal results


class ControlRegister6(Register):
    """Control register 6."""

    machine_check_masks = bits(31, 28)
    extended_psw = bit(23)  # bit 8
    external_masks = bits(7, 0)


class Model67(Cpu):
    """System/360 Model 67, simplex, 24-bit addresses."""

    aligned = True

    psw = group(Model67Psw)
    cr0_5 = bank(CR_NAMES[:6], 32, role=RESOURCE)  # 0 segment table, 2 translation-exception address, 4 masks
    cr6 = register(ControlRegister6, role=RESOURCE)
    cr7_15 = bank(CR_NAMES[7:], 32, role=RESOURCE)  # 8-14 show how the installation is partitioned

    @property
    def cr(self) -> WordBank:
        """The control registers by number."""
        return WordBank(self, CR_NAMES)

    @property
    def extended(self) -> Word:
        """Bit 8 of control register 6."""
        return self.cr6.extended_psw

    @property
    def ascii_codes(self) -> Word:
        """PSW bit 12."""
        return self.psw.ascii

    def extend(self) -> None:
        """Set bit 8 of control register 6."""
        self.cr6.extended_psw = 1

    def psw_word(self, code: Word) -> Word:
        """The PSW as 64 bits, in the format of the mode."""
        psw = self.psw
        middle = concat(psw.key, psw.ascii, psw.machine_check, psw.wait, psw.problem)
        flags = concat(self.ilc, psw.cc, psw.program_mask)
        standard_mask = concat(psw.channels, psw.io, psw.external)
        standard = concat(standard_mask, middle, code, flags, psw.address)
        extended_mask = concat(Word(5, 0), psw.dat, psw.io, psw.external)
        extended = concat(extended_mask, middle, flags, Word(16, 0), psw.address)
        return ite(self.extended, extended, standard)

    def load_psw(self, new: Word) -> None:
        """The 64 bits become the PSW, as control register 6 says they are to be read."""
        psw, extended = self.psw, self.extended
        psw.key, psw.ascii, psw.machine_check = new[55:52], new[51], new[50]
        psw.wait, psw.problem, psw.address = new[49], new[48], new[23:0]
        psw.cc = ite(extended, new[45:44], new[29:28])
        psw.program_mask = ite(extended, new[43:40], new[27:24])
        self.load_system_mask(new[63:56])

    def load_system_mask(self, mask: Word) -> None:
        """PSW bits 0-7 := mask, as the mode reads them."""
        if self.extended & mask[3]:
            raise NotModelledError("32-bit addressing")
        self.psw.channels = ite(self.extended, Word(6, 0), mask[7:2])
        self.psw.dat = mask[2] & self.extended
        self.psw.io, self.psw.external = mask[1], mask[0]


def _invariant(cpu: Model67) -> Word:
    """Fields of the other mode are zero."""
    return ite(cpu.extended, cpu.psw.channels == 0, cpu.psw.dat == 0)


def deliver(before: Model67, trap: Trap[Model67]) -> Model67:
    """Store the old PSW and the interruption code; load the new PSW.

    In the extended mode the code goes to location 16 (supervisor call) or 18 (program), and the
    translation-exception address to control register 2: from memory.
    """
    cpu, vector, code = trap.state.copy(), trap.vector, trap.error_code
    supervisor_call = vector is program.SUPERVISOR_CALL
    interruption = Word(16, vector.number & 0xFF)
    if supervisor_call and code is not None:
        interruption = code.zero_extend(16)
    elif code is not None:
        cpu.cr[2] = code.zero_extend(32)
    place = cpu.real(16 if supervisor_call else 18, 2)
    cpu.write(place, ite(cpu.extended, interruption, cpu.read(place)))
    old, new = (32, 96) if supervisor_call else (40, 104)
    cpu.write(cpu.real(old, 8), cpu.psw_word(interruption))
    cpu.ilc = Word(2, 0)
    cpu.load_psw(cpu.read(cpu.real(new, 8)))
    return cpu


def _interruptions() -> tuple[Interruption[Model67], ...]:
    """The interval timer's external interruption and one of a channel.

    Of the extended mode from memory: PSW bit 7 masks the timer, PSW bit 6 and control register 4 the channels; the
    codes are at locations 14 and 22.
    """

    def channel_enabled(state: Model67, channel: Word) -> Word:
        own = (state.psw.channels << channel.zero_extend(6))[5]
        masked = (state.cr[4] << channel.zero_extend(32))[31]
        return ite(state.extended, state.psw.io & masked, ite(channel >= 6, state.psw.io, own))

    return (
        external(
            "interval-timer interruption",
            Word(16, 0x80),
            lambda state: state.psw.external,
            identification=14,
            source=SOURCE,
        ),
        input_output(channel_enabled, identification=22, source=SOURCE, channels=7),
    )


def build() -> Machine[Model67]:
    """The Model 67 in its standard and its extended PSW mode."""
    machine = Machine(
        "s360-67",
        "IBM System/360 Model 67",
        Model67,
        supervisor=lambda state: state.psw.problem == 0,
        user=lambda state: state.psw.problem == 1,
        source=SOURCE,
        operands=KINDS,
        settings=(
            leaf_setting("EXTENDED", "cr6.extended_psw", 1, "control register 6 bit 8: extended PSW mode"),
            leaf_setting("DAT", "psw.dat", 1, "PSW bit 5 in the extended mode: dynamic address translation"),
        ),
        invariant=_invariant,
        relocate=relocated,
        relocation_width=BLOCK,
        deliver=deliver,
        interruptions=_interruptions(),
        techniques=techniques(Model67, shared=("psw.ascii",)),
        architecture=listing("s360", "instructions-model-67"),
        left_open=LEFT_OPEN_67,
        notes=(
            "32-bit addressing: entering it is 'not modelled'",
            "segment and page tables: what they yield is state; loading others is 'not modelled'",
            "prefixing, which is wired on this machine; the duplex configuration; special features",
            "the interval timer's updating of location 80, floating point, decimal products and editing",
            "EXECUTE puts its target where the next step finds it; access exceptions of fetching an instruction",
            "recording of references and changes by ordinary references to storage",
            "what a channel program does; of the CSW, only its status",
        ),
        interrupt_masks=(
            "psw.channels",
            "psw.io",
            "psw.external",
            "psw.machine_check",
            "cr4",
            "cr6.external_masks",
            "cr6.machine_check_masks",
        ),
    )
    declare_general(machine)
    declare_arithmetic(machine)
    declare_strings(machine)
    declare_decimal(machine)
    declare_execute(machine)
    declare_control(machine)
    _declare_model67(machine)
    return machine


def _declare_model67(machine: Machine[Model67]) -> None:
    @declare(machine, "SSM D2(B2)", source=CONTROL, privileged=True)
    def set_system_mask(cpu: Model67, second: Address) -> None:
        """PSW bits 0-7 := the byte."""
        cpu.load_system_mask(cpu.fetch(second, 1))

    for name, count in (("R1,R3=R1", 1), ("R1,R3=R1+1", 2)):

        @declare(machine, f"LMC {name},D2(B2)", source=MODEL_67, privileged=True, count=count)
        def load_multiple_control(cpu: Model67, r1: Word, second: Address, count: int) -> None:
            """Control registers R1 through R3 := consecutive words."""
            words = cpu.fetch(second, 4 * count, unit=4)
            table, mask = cpu.cr[0], cpu.system_mask
            for i in range(count):
                low, number = 32 * (count - 1 - i), r1 + i
                # The partitioning registers show switches; the unassigned ones hold nothing.
                held = number.isin((0, 2, 4, 6))
                cpu.cr[number] = ite(held, words[low + 31 : low], cpu.cr[number])
            if cpu.cr[0] != table:
                raise NotModelledError("control register 0 designates another segment table")
            cpu.load_system_mask(mask)

        @declare(machine, f"STMC {name},D2(B2)", source=MODEL_67, privileged=True, count=count)
        def store_multiple_control(cpu: Model67, r1: Word, second: Address, count: int) -> None:
            """Consecutive words := control registers R1 through R3."""
            cpu.store(second, concat(*(cpu.cr[r1 + i] for i in range(count))), unit=4)


__all__ = ["Model67", "build", "deliver"]
