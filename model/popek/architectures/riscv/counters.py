"""Unprivileged CSRs: counters and floating-point status (unprivileged manual, "Zicntr", "F")."""

from __future__ import annotations

from collections.abc import Callable

from popek.kernel.words import Word, ite

from .csrs import Condition, Csr, always, ignoring, stored
from .state import USER, XLEN, Rv64

UNPRIVILEGED = "RISC-V ISA manual, volume I (unprivileged), August 2026"


def _counter(
    name: str, number: int, field: str, read: Callable[[Rv64], Word], exists: Condition = always
) -> Csr:
    """A counter that xCOUNTEREN opens; M reads it in any case."""

    def closed_below_m(cpu: Rv64) -> Word:
        return ~cpu[f"mcounteren.{field}"]

    def closed(cpu: Rv64) -> Word:
        return (cpu.prv == USER) & ~cpu.v & ~cpu[f"scounteren.{field}"]

    def closed_to_guests(cpu: Rv64) -> Word:
        return ~cpu[f"hcounteren.{field}"] | ((cpu.prv == USER) & ~cpu[f"scounteren.{field}"])

    return Csr(
        name,
        number,
        read,
        ignoring,
        f"{UNPRIVILEGED}, Zicntr and Zihpm",
        exists=exists,
        closed_below_m=closed_below_m,
        closed=closed,
        closed_to_guests=closed_to_guests,
    )


def _time(cpu: Rv64) -> Word:
    """mtime, to a guest with htimedelta added."""
    return cpu.time + ite(cpu.v, cpu.htimedelta, Word(XLEN, 0))


def is_off(cpu: Rv64) -> Word:
    """Floating point is off, for a guest in either of two places: always an illegal instruction."""
    return (cpu.mstatus.fs == 0) | (cpu.v & (cpu.vsstatus.fs == 0))


def _floating(name: str, number: int, high: int, low: int) -> Csr:
    def read(cpu: Rv64) -> Word:
        return cpu.fcsr.value[high:low].zero_extend(XLEN)

    def write(cpu: Rv64, value: Word) -> None:
        cpu.fcsr.value = cpu.fcsr.value.replace(high, low, value.truncate(high - low + 1))
        cpu.dirty()

    return Csr(
        name,
        number,
        read,
        write,
        f'{UNPRIVILEGED}, "F" Extension',
        exists=lambda cpu: cpu.misa.f,
        closed=is_off,
    )


def user_csrs() -> tuple[Csr, ...]:
    """The CSRs that every mode may see."""
    return (
        _floating("fflags", 0x001, 4, 0),
        _floating("frm", 0x002, 7, 5),
        _floating("fcsr", 0x003, 7, 0),
        _counter("cycle", 0xC00, "cy", stored("mcycle")),
        _counter("time", 0xC01, "tm", _time, exists=lambda cpu: cpu.features.time),
        _counter("instret", 0xC02, "ir", stored("minstret")),
        _counter("hpmcounter3", 0xC03, "hpm3", stored("mhpmcounter3")),
    )
