"""PDP-11/45 instructions on which mode, priority and address spaces depend (handbook, chapters 2, 4 and 6).

None but HALT traps for want of privilege: outside kernel mode they do less, or nothing, and say nothing.
"""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.words import FALSE, Word

from .state import HANDBOOK, ILLEGAL_HALT, KERNEL, PS_BITS, TRACE_TRAP, UNDEFINED_MODE, Pdp11


def add(machine: Machine[Pdp11]) -> None:
    """Declare them."""
    _control(machine)
    _returns(machine)
    _previous_space(machine)


def _control(machine: Machine[Pdp11]) -> None:
    @machine.instruction("HALT", source=f"{HANDBOOK}, chapter 4, HALT")
    def halt(cpu: Pdp11) -> None:
        """Stop the processor; outside kernel mode trap through 4."""
        if cpu.ps.current != KERNEL:
            raise Fault(ILLEGAL_HALT, keeps=True)
        cpu.running = FALSE

    @machine.instruction("WAIT", source=f"{HANDBOOK}, chapter 4, WAIT (no restriction is given for any mode)")
    def wait(cpu: Pdp11) -> None:
        """Give up the bus until an interrupt."""
        cpu.waiting = Word(1, 1)

    @machine.instruction("RESET", source=f"{HANDBOOK}, chapter 4, RESET")
    def reset(cpu: Pdp11) -> None:
        """INIT on the Unibus: PIRQ and MMR0 are cleared; outside kernel mode nothing happens."""
        if cpu.ps.current == KERNEL:
            cpu.pirq = Word(7, 0)
            cpu.mme = FALSE

    @machine.instruction("SPL n", source=f"{HANDBOOK}, chapter 4, SPL")
    def spl(cpu: Pdp11, level: Word) -> None:
        """Priority := n; outside kernel mode nothing happens."""
        if cpu.ps.current == KERNEL:
            cpu.ps.priority = level


def _returns(machine: Machine[Pdp11]) -> None:
    @machine.instruction("RTI", source=f"{HANDBOOK}, chapter 4, RTI", trace=True)
    @machine.instruction("RTT", source=f"{HANDBOOK}, chapter 4, RTT", trace=False)
    def rti(cpu: Pdp11, trace: bool) -> None:
        """PC := (SP)+, PS := (SP)+; after RTI a T bit that comes on traps at once.

        Outside kernel mode the mode bits and the register set can only be set, and the priority stays.
        """
        pc = cpu.load(cpu.sp)
        new = cpu.load(cpu.sp + 2) & PS_BITS
        cpu.sp = cpu.sp + 4
        mode, previous = new[15:14], new[13:12]
        if cpu.ps.current == KERNEL:
            _defined(mode, previous)
            cpu.enter(mode)
            cpu.ps.value = new
        else:
            mode, previous = mode | cpu.ps.current, previous | cpu.ps.previous
            _defined(mode, previous)
            if mode != cpu.ps.current:
                cpu.enter(mode)
            cpu.ps.previous = previous
            cpu.ps.set = cpu.ps.set | new[11]
            cpu.ps.value = cpu.ps.value.replace(4, 0, new[4:0])
        cpu.pc = pc
        if trace and cpu.ps.t:
            raise Fault(TRACE_TRAP, keeps=True)


def _defined(mode: Word, previous: Word) -> None:
    if (mode == UNDEFINED_MODE) | (previous == UNDEFINED_MODE):
        raise NotModelledError("mode bits 10, which the handbook leaves undefined")


def _previous_space(machine: Machine[Pdp11]) -> None:
    # Data space is off (MMR3 = 0): the instructions of I space and of D space do the same.
    def source(name: str) -> str:
        return f"{HANDBOOK}, chapter 6, {name}"

    def moved(cpu: Pdp11, value: Word) -> Word:
        cpu.set_nz(value)
        cpu.ps.v = FALSE
        return value

    for name in ("MFPI", "MFPD"):

        @machine.instruction(f"{name} R", source=source(name))
        def mfp_register(cpu: Pdp11, src: Word) -> None:
            """Push a register; R0 to R5 are the same in all modes."""
            cpu.push(moved(cpu, cpu.register(src)))

        @machine.instruction(f"{name} SP", source=source(name))
        def mfp_sp(cpu: Pdp11) -> None:
            """Push the stack pointer of the previous mode."""
            cpu.push(moved(cpu, cpu.previous_sp))

        @machine.instruction(f"{name} (R)", source=source(name))
        def mfp_storage(cpu: Pdp11, src: Word) -> None:
            """Push a word of the previous mode's space."""
            cpu.push(moved(cpu, cpu.load_previous(cpu.register(src))))

    for name in ("MTPI", "MTPD"):

        @machine.instruction(f"{name} R", source=source(name))
        def mtp_register(cpu: Pdp11, dst: Word) -> None:
            """Pop into a register."""
            cpu.set_register(dst, moved(cpu, cpu.pop()))

        @machine.instruction(f"{name} SP", source=source(name))
        def mtp_sp(cpu: Pdp11) -> None:
            """Pop into the stack pointer of the previous mode."""
            cpu.previous_sp = moved(cpu, cpu.pop())

        @machine.instruction(f"{name} (R)", source=source(name))
        def mtp_storage(cpu: Pdp11, dst: Word) -> None:
            """Pop into a word of the previous mode's space."""
            value = moved(cpu, cpu.pop())
            cpu.store_previous(cpu.register(dst), value)
