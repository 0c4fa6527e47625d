"""System/370 (GA22-7000, IBM System/370 Principles of Operation)."""

from __future__ import annotations

from popek.architectures.listing import listing
from popek.kernel.interruption import Interruption
from popek.kernel.machine import Machine, leaf_setting
from popek.kernel.outcome import Trap
from popek.kernel.words import Word, concat, ite

from . import interruptions as program
from .arithmetic import declare_arithmetic
from .asynchronous import external, input_output
from .control import declare_control
from .control_extended import declare_extended
from .control_s370 import declare_s370
from .decimal import declare_decimal
from .deprivileging import IN_ONE_PIECE, Placement, techniques
from .general import declare_general
from .left_open import S370 as LEFT_OPEN
from .long_moves import declare_execute, declare_long
from .operands import KINDS
from .s370_state import S370, SOURCE
from .state import BLOCK, OFFSET, relocated
from .strings import declare_masked, declare_strings


def _invariant(cpu: S370) -> Word:
    """Fields of the other mode are zero."""
    psw = cpu.psw
    return ite(psw.extended, psw.channels == 0, (psw.dat | psw.per) == 0)


def deliver(before: S370, trap: Trap[S370]) -> S370:
    """Store the old PSW and what else the interruption stores; load the new PSW."""
    cpu, vector, code = trap.state.copy(), trap.vector, trap.error_code
    supervisor_call = vector is program.SUPERVISOR_CALL
    if supervisor_call:
        assert code is not None
        interruption = code.zero_extend(16)
    else:
        interruption = Word(16, vector.number)
    old, new = (32, 96) if supervisor_call else (40, 104)
    image = cpu.psw_word(interruption)
    if vector is program.PSW_FORMAT:
        assert code is not None
        image = code
    identification = 136 if supervisor_call else 140
    length = concat(Word(13, 0), cpu.ilc, Word(1, 0))
    place = cpu.real(identification, 4)
    kept = cpu.read(place)
    cpu.write(place, ite(cpu.extended, concat(length, interruption), kept))
    if code is not None and vector in (program.SEGMENT_TRANSLATION, program.PAGE_TRANSLATION):
        cpu.write(cpu.real(144, 4), code.replace(OFFSET - 1, 0, 0).zero_extend(32))
    if code is not None and vector is program.MONITOR_EVENT:
        cpu.write(cpu.real(148, 2), code[27:24].zero_extend(16))
        cpu.write(cpu.real(156, 4), code[23:0].zero_extend(32))
    cpu.write(cpu.real(old, 8), image)
    cpu.ilc = Word(2, 0)
    cpu.load_psw(cpu.read(cpu.real(new, 8)))
    return cpu


def _interruptions() -> tuple[Interruption[S370], ...]:
    """The clock comparator's external interruption and one of a channel (GA22-7000, "Interruptions")."""

    def channel_enabled(state: S370, channel: Word) -> Word:
        """By channel masks in the PSW or, where bit 6 speaks for all, by control register 2."""
        masked = (state.cr2 << channel.zero_extend(32))[31]
        own = (state.psw.channels << channel.zero_extend(6))[5]
        return ite(state.extended | (channel >= 6), state.psw.io & masked, own)

    return (
        external(
            "clock-comparator interruption",
            Word(16, 0x1004),
            lambda state: state.psw.external & state.cr0.external_masks[11],
            identification=134,
            source=SOURCE,
        ),
        input_output(channel_enabled, identification=186, source=SOURCE),
    )


def build(placed: Placement = IN_ONE_PIECE) -> Machine[S370]:
    """System/370 with translation and the extended facility's low-address protection.

    Args:
        placed: where its technique has a guest's storage.
    """
    machine = Machine(
        "s370",
        "IBM System/370",
        S370,
        supervisor=lambda state: state.psw.problem == 0,
        user=lambda state: state.psw.problem == 1,
        source=SOURCE,
        operands=KINDS,
        settings=(
            leaf_setting("EC", "psw.extended", 1, "PSW bit 12: basic (0) or extended (1) control mode"),
            leaf_setting("DAT", "psw.dat", 1, "PSW bit 5 in the EC mode: dynamic address translation"),
            leaf_setting("DAS", "dual_address_space", 1, "the dual-address-space facility is installed", 0),
        ),
        invariant=_invariant,
        relocate=relocated,
        relocation_width=BLOCK,
        deliver=deliver,
        interruptions=_interruptions(),
        techniques=techniques(
            S370,
            shared=("cr0.low_address_protection", "cr8.monitor_masks"),
            same=("dual_address_space",),
            relocating=("prefix",),
            placed=placed,
        ),
        architecture=listing("s360", "instructions-s370"),
        left_open=LEFT_OPEN,
        notes=(
            "segment and page tables: what they yield is state; loading others is 'not modelled'",
            "segment protection, common segments, channel-set switching, multiprocessing",
            "recording of references and changes by ordinary references to storage",
            "program-event recording, the interval timer's updating of location 80",
            "floating point, decimal products and editing",
            "EXECUTE puts its target where the next step finds it; access exceptions of fetching an instruction",
            "what a channel program does; of the CSW, only its status",
            "dual address space but for SPKA, IPK, EPAR, ESAR, IVSK and IAC: no other space is ever in use",
        ),
        interrupt_masks=(
            "psw.channels",
            "psw.io",
            "psw.external",
            "psw.machine_check",
            "cr0.external_masks",
            "cr2",
        ),
    )
    declare_general(machine)
    declare_arithmetic(machine)
    declare_strings(machine)
    declare_decimal(machine)
    declare_masked(machine)
    declare_long(machine)
    declare_execute(machine)
    declare_control(machine)
    declare_s370(machine)
    declare_extended(machine)
    return machine


__all__ = ["S370", "build", "deliver"]
