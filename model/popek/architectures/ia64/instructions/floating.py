"""Floating-point registers: moves, loads, stores, logic, status (vol. 3).

PSR.dfl and PSR.dfh decide which registers can be used, and PSR.mfl and PSR.mfh tell which were written.  What rounds
is out; its checks are those of fmerge.  So are the formats in storage that are not a register's own bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, any_of, concat, ite

from ..access import data_place, fetch, load, put, store
from ..interruptions import (
    REGISTER_NAT,
    check_target,
    floating_enabled,
    floating_target,
    reserved_field,
    source,
)
from ..state import NATVAL, Ia64
from .storage import defers

INTEGER: Final = 0x1003E  # the exponent of a number that is its significand
FIELDS: Final = (6, 19, 32, 45)  # FPSR.sf0-3: 7 bits of controls, 6 of flags


def declare(machine: Machine[Ia64]) -> None:
    """Add the family to a machine."""
    _transfers(machine)
    _storage(machine)
    _logic(machine)
    _status(machine)


def integer(significand: Word) -> Word:
    """A register that holds 64 bits as they are."""
    return concat(Word(1, 0), Word(17, INTEGER), significand)


def is_natval(value: Word) -> Word:
    """NaTVal (width 1)."""
    return value == NATVAL


def _transfers(machine: Machine[Ia64]) -> None:
    parts: dict[str, tuple[Callable[[Word], Word], Callable[[Word], Word]]] = {
        "sig": (lambda f: f[63:0], integer),
        "exp": (lambda f: f[81:64].zero_extend(64), lambda g: concat(g[17:0], Word(64, 1 << 63))),
    }
    for part, (out_of, into) in parts.items():

        @machine.instruction(
            f"getf.{part} r = f", source="SDM vol. 3, getf", mnemonic=f"GETF.{part.upper()}", out_of=out_of
        )
        def get(cpu: Ia64, r1: Word, f2: Word, *, out_of: Callable[[Word], Word]) -> None:
            """The significand, or sign and exponent; NaT where the source is NaTVal."""
            check_target(cpu, r1)
            floating_enabled(cpu, f2)
            value = cpu.read_fr(f2)
            cpu.write_gr(r1, out_of(value), is_natval(value))

        @machine.instruction(
            f"setf.{part} f = r", source="SDM vol. 3, setf", mnemonic=f"SETF.{part.upper()}", into=into
        )
        def set_(cpu: Ia64, f1: Word, r2: Word, *, into: Callable[[Word], Word]) -> None:
            """The significand, or sign and exponent; NaTVal where the source is NaT."""
            floating_target(f1)
            floating_enabled(cpu, f1)
            cpu.write_fr(f1, ite(cpu.read_nat(r2), Word(82, NATVAL), into(cpu.read_gr(r2))))


def _storage(machine: Machine[Ia64]) -> None:
    page = "SDM vol. 3, {}; vol. 1, figure 5-9"

    def target(cpu: Ia64, f1: Word) -> None:
        floating_target(f1)
        floating_enabled(cpu, f1)

    @machine.instruction("ldf8 f = [r]", source=page.format("ldf"), mnemonic="LDF8")
    def load_integer(cpu: Ia64, f1: Word, r3: Word) -> None:
        """8 bytes of storage as a significand."""
        target(cpu, f1)
        cpu.write_fr(f1, integer(load(cpu, source(cpu, r3))))

    @machine.instruction("ldf8.s f = [r]", source=page.format("ldf"), mnemonic="LDF8.S")
    def speculative_load(cpu: Ia64, f1: Word, r3: Word) -> None:
        """As ldf8, or defer the exception as a NaTVal, as a load of a general register does."""
        target(cpu, f1)
        if defers(cpu, r3, 8):
            cpu.psr.ed = 0
            cpu.write_fr(f1, Word(82, NATVAL))
        else:
            cpu.write_fr(f1, integer(load(cpu, cpu.read_gr(r3))))

    @machine.instruction("ldf.fill f = [r]", source=page.format("ldf"), mnemonic="LDF.FILL")
    def fill(cpu: Ia64, f1: Word, r3: Word) -> None:
        """16 bytes of storage: the register as stf.spill left it."""
        target(cpu, f1)
        place = data_place(cpu, source(cpu, r3), 16, write=False)
        one, other = fetch(cpu, place), fetch(cpu, place.replace(3, 3, 1))
        significand, rest = ite(cpu.psr.be, other, one), ite(cpu.psr.be, one, other)
        cpu.write_fr(f1, concat(rest[17:0], significand))

    @machine.instruction("stf8 [r] = f", source=page.format("stf"), mnemonic="STF8")
    def store_integer(cpu: Ia64, r3: Word, f2: Word) -> None:
        """The significand into storage; a NaTVal is consumed with a fault."""
        floating_enabled(cpu, f2)
        value = cpu.read_fr(f2)
        if cpu.read_nat(r3) | is_natval(value):
            raise Fault(REGISTER_NAT)
        store(cpu, cpu.read_gr(r3), value[63:0])

    @machine.instruction("stf.spill [r] = f", source=page.format("stf"), mnemonic="STF.SPILL")
    def spill(cpu: Ia64, r3: Word, f2: Word) -> None:
        """16 bytes into storage: the whole register, NaTVal or not."""
        floating_enabled(cpu, f2)
        place = data_place(cpu, source(cpu, r3), 16, write=True)
        value = cpu.read_fr(f2)
        significand, rest = value[63:0], value[81:64].zero_extend(64)
        put(cpu, place, ite(cpu.psr.be, rest, significand))
        put(cpu, place.replace(3, 3, 1), ite(cpu.psr.be, significand, rest))


def _logic(machine: Machine[Ia64]) -> None:
    operations: dict[str, Callable[[Word, Word], Word]] = {
        "fmerge.s": lambda a, b: concat(a[81], b[80:0]),
        "fmerge.ns": lambda a, b: concat(~a[81], b[80:0]),
        "fmerge.se": lambda a, b: concat(a[81:64], b[63:0]),
        "fand": lambda a, b: integer(a[63:0] & b[63:0]),
        "fandcm": lambda a, b: integer(a[63:0] & ~b[63:0]),
        "for": lambda a, b: integer(a[63:0] | b[63:0]),
        "fxor": lambda a, b: integer(a[63:0] ^ b[63:0]),
    }

    def result(cpu: Ia64, f1: Word, value: Word, sources: tuple[Word, ...]) -> None:
        cpu.write_fr(f1, ite(any_of(map(is_natval, sources)), Word(82, NATVAL), value))

    for name, operation in operations.items():

        @machine.instruction(
            f"{name} f = f, f",
            source=f"SDM vol. 3, {name.split('.')[0]}",
            mnemonic=name.upper(),
            operation=operation,
        )
        def combine(
            cpu: Ia64, f1: Word, f2: Word, f3: Word, *, operation: Callable[[Word, Word], Word]
        ) -> None:
            """Fields of two registers, NaTVal where a source is."""
            floating_target(f1)
            floating_enabled(cpu, f1, f2, f3)
            a, b = cpu.read_fr(f2), cpu.read_fr(f3)
            result(cpu, f1, operation(a, b), (a, b))

    @machine.instruction("fselect f = f, f, f", source="SDM vol. 3, fselect", mnemonic="FSELECT")
    def select(cpu: Ia64, f1: Word, f3: Word, f4: Word, f2: Word) -> None:
        """Significand bits of f3 where f2 has 1, of f4 where it has 0; NaTVal where a source is."""
        floating_target(f1)
        floating_enabled(cpu, f1, f2, f3, f4)
        a, b, mask = cpu.read_fr(f3), cpu.read_fr(f4), cpu.read_fr(f2)
        chosen = (a & mask)[63:0] | (b & ~mask)[63:0]
        result(cpu, f1, integer(chosen), (a, b, mask))

    @machine.instruction("chk.s f, imm25", source="SDM vol. 3, chk (3:35)", mnemonic="CHK.S")
    def check(cpu: Ia64, f2: Word, displacement: Word) -> None:
        """Branch where the register is NaTVal."""
        floating_enabled(cpu, f2)
        if is_natval(cpu.read_fr(f2)):
            cpu.branch(cpu.bundle + (displacement.sign_extend(64) << 4))


def _status(machine: Machine[Ia64]) -> None:
    def chosen(values: list[Word], number: Word) -> Word:
        value = values[3]
        for position in range(2, -1, -1):
            value = ite(number == position, values[position], value)
        return value

    @machine.instruction("fsetc sf, imm7, imm7", source="SDM vol. 3, fsetc", mnemonic="FSETC")
    def set_controls(cpu: Ia64, field: Word, kept: Word, added: Word) -> None:
        """Controls of a status field := those of field 0, masked, with bits added."""
        old = cpu.ar.fpsr
        controls = old[12:6] & kept | added
        reserved_field((controls[3:2] == 1) | ((field == 0) & controls[6]))
        new = [old.replace(low + 6, low, controls) for low in FIELDS]
        cpu.ar.fpsr = chosen(new, field)

    @machine.instruction("fclrf sf", source="SDM vol. 3, fclrf", mnemonic="FCLRF")
    def clear_flags(cpu: Ia64, field: Word) -> None:
        """Flags of a status field := 0."""
        cpu.ar.fpsr = chosen([cpu.ar.fpsr.replace(low + 12, low + 7, 0) for low in FIELDS], field)

    @machine.instruction("fchkf sf, imm25", source="SDM vol. 3, fchkf (3:63)", mnemonic="FCHKF")
    def check_flags(cpu: Ia64, field: Word, displacement: Word) -> None:
        """Branch where a flag of the status field is set that traps, or that field 0 has not."""
        status = cpu.ar.fpsr
        flags = chosen([status[low + 12 : low + 7] for low in FIELDS], field)
        if ((flags & ~status[5:0]) != 0) | ((flags & ~status[18:13]) != 0):
            cpu.branch(cpu.bundle + (displacement.sign_extend(64) << 4))
