"""fc, tf; innocuous controls: branches, checks, moves (vol. 3)."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, Word, ite

from ..access import PHYSICAL_BITS, data_address
from ..interruptions import ILLEGAL_OPERATION, check_target, source
from ..state import Ia64


def declare(machine: Machine[Ia64]) -> None:
    """Add the family to a machine."""
    _cache(machine)
    _control(machine)


def _cache(machine: Machine[Ia64]) -> None:
    @machine.instruction("fc r", source="SDM vol. 3, fc", mnemonic="FC")
    @machine.instruction("fc.i r", source="SDM vol. 3, fc", mnemonic="FC.I")
    def flush_cache(cpu: Ia64, r3: Word) -> None:
        """Write back and drop the cache line of an address, at any level."""
        place = data_address(cpu, source(cpu, r3), write=False)
        cpu.dirty = cpu.dirty.store(place[PHYSICAL_BITS - 1 : 6], FALSE)

    for form in ("sync.i", "fwb", "mf", "mf.a", "srlz.i", "srlz.d", "invala", "nop imm21", "hint imm21"):

        @machine.instruction(
            form,
            source=f"SDM vol. 3, {form.split('.')[0].split()[0]}",
            mnemonic=form.split()[0].upper(),
        )
        def order(cpu: Ia64, *immediate: Word) -> None:
            """Nothing that a program can compute with."""

    @machine.instruction("tf r = imm8", source="SDM vol. 3, tf; vol. 2, 2:345", mnemonic="TF")
    def test_feature(cpu: Ia64, r1: Word, number: Word) -> None:
        """Bit 32-63 of CPUID[4], which says whether a feature exists; here into a register.

        Only features 32 to 63 exist; the two target predicates of the real instruction are one register.
        """
        check_target(cpu, r1)
        virtual = (cpu.psr.vm == 1) & (cpu.vac.a_tf == 1)
        features = ite(virtual, cpu.vcpuid.load(Word(3, 4)), cpu.cpuid.load(Word(8, 4)))
        exists = number[7:5] == 1
        bit = (features >> number.zero_extend(64))[0]
        cpu.write_gr(r1, ite(exists, bit, FALSE).zero_extend(64))


def _control(machine: Machine[Ia64]) -> None:
    @machine.instruction("br imm25", source="SDM vol. 3, br", mnemonic="BR")
    def branch(cpu: Ia64, displacement: Word) -> None:
        """IP-relative branch."""
        cpu.branch(cpu.bundle + (displacement.sign_extend(64) << 4))

    @machine.instruction("br b", source="SDM vol. 3, br", mnemonic="BR")
    def branch_indirect(cpu: Ia64, b2: Word) -> None:
        """Branch to a branch register."""
        cpu.branch(cpu.br.load(b2))

    @machine.instruction("br.cloop imm25", source="SDM vol. 3, br", mnemonic="BR.CLOOP")
    def counted_loop(cpu: Ia64, displacement: Word) -> None:
        """Count LC down and branch, until it is 0; in the bundle's last slot alone."""
        if cpu.psr.ri != 0:  # past this instruction already
            raise Fault(ILLEGAL_OPERATION)
        if cpu.ar.lc != 0:
            cpu.ar.lc = cpu.ar.lc - 1
            cpu.branch(cpu.bundle + (displacement.sign_extend(64) << 4))

    @machine.instruction("chk.s r, imm25", source="SDM vol. 3, chk (3:35)", mnemonic="CHK.S")
    def check_speculation(cpu: Ia64, r2: Word, displacement: Word) -> None:
        """Branch where the register is NaT."""
        if cpu.read_nat(r2):
            cpu.branch(cpu.bundle + (displacement.sign_extend(64) << 4))

    @machine.instruction("brp imm25", source="SDM vol. 3, brp", mnemonic="BRP")
    @machine.instruction("brp b", source="SDM vol. 3, brp", mnemonic="BRP")
    def predict(cpu: Ia64, place: Word) -> None:
        """A hint where a branch goes to: nothing that a program can compute with."""

    @machine.instruction("mov b = r", source="SDM vol. 3, mov br", mnemonic="MOV to BR")
    def move_to_branch(cpu: Ia64, b1: Word, r2: Word) -> None:
        """Write a branch register."""
        cpu.br = cpu.br.store(b1, source(cpu, r2))

    @machine.instruction("mov r = b", source="SDM vol. 3, mov br", mnemonic="MOV from BR")
    def move_from_branch(cpu: Ia64, r1: Word, b2: Word) -> None:
        """Read a branch register."""
        check_target(cpu, r1)
        cpu.write_gr(r1, cpu.br.load(b2))

    @machine.instruction("mov r = ip", source="SDM vol. 3, mov ip", mnemonic="MOV from IP")
    def move_from_ip(cpu: Ia64, r1: Word) -> None:
        """The address of the bundle."""
        check_target(cpu, r1)
        cpu.write_gr(r1, cpu.bundle)

    @machine.instruction("mov pr = r", source="SDM vol. 3, mov pr", mnemonic="MOV to PR")
    def move_to_predicates(cpu: Ia64, r2: Word) -> None:
        """All predicates; PR0 stays 1."""
        cpu.pr = source(cpu, r2) | 1

    @machine.instruction("mov r = pr", source="SDM vol. 3, mov pr", mnemonic="MOV from PR")
    def move_from_predicates(cpu: Ia64, r1: Word) -> None:
        """All predicates."""
        check_target(cpu, r1)
        cpu.write_gr(r1, cpu.pr | 1)
