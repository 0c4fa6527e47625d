"""The virtual machine map for the PDP-10: the whole guest in user mode, moved in core.

Popek and Goldberg take the KA10 as their example of a machine that has no VMM of this kind and has a
hybrid one, which runs the guest's executive mode by interpretation and its user mode through this map.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.memory import Memory
from popek.kernel.technique import TRAPS_ONLY, Technique
from popek.kernel.words import TRUE, Word, ite

from .ka10_state import Ka10
from .ks10_state import Ks10
from .state import ADDRESS, is_accumulator, right, shifted

SOURCE: Final = "Popek and Goldberg 1974, sections 4 and 6"
ACCUMULATORS: Final = tuple(f"ac{number:o}" for number in range(16))
COMMON: Final = ("flags.user", "flags.user_io", "pi_on", "pi_enabled", "pi_active", "pi_requests", "running")
KA10_OWNED: Final = (
    *COMMON, "bound", "base", "user_bound", "user_base", "apr.channel", "apr.overflow_enabled",
    "apr.floating_overflow_enabled", "apr.clock", "apr.clock_enabled", "apr.nonexistent_memory",
    "apr.memory_protection", "apr.address_break", "switches", "device_data", "device_conditions",
)  # fmt: skip
KS10_OWNED: Final = (
    *COMMON, "bound", "base", "process_map", "ubr", "ebr", "paging", "apr_enabled", "apr_flags",
    "apr_channel", "apr_id", "halt_status",
)  # fmt: skip
# These relocate the guest, or are the same for every guest that runs.
NOT_REPLACED: Final = ("flags.user", "bound", "base", "paging", "running")


def _replaced(owned: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in owned if name not in NOT_REPLACED)


def _moved(guest: Ka10 | Ks10, private: Ka10 | Ks10, start: Word, last: Word) -> Memory:
    """Core with the guest's, `last` + 1 blocks or pages of it, from `start` on."""
    inside, outside = guest.memory, private.memory

    def view(address: Word) -> Word:
        block = address[address.width - 1 : address.width - start.width]
        return ite(block - start <= last, inside.load(shifted(address, -start)), outside.load(address))

    return Memory(outside.address_width, outside.cell_width, view)


def _ka10_map(guest: Ka10, private: Ka10) -> Ka10:
    """Guest block b is real block start + b, where start is the VMM's relocation register."""
    hardware, start = private.copy(), private.user_base
    for name in ("pc", *ACCUMULATORS, "executing", "ir", "pushdown_overflow"):
        hardware[name] = guest[name]
    # how the processors are built
    hardware.floating, hardware.long_division = guest.floating, guest.long_division
    hardware.flags = guest.flags.value
    hardware.flags.user = TRUE
    hardware.flags.user_io = private.flags.user_io
    hardware.base = guest.base + start
    left = guest.last - guest.base
    hardware.bound = ite(guest.bound < left, guest.bound, left)
    hardware.memory = _moved(guest, private, start, guest.last)
    return hardware


def _ka10_guest(state: Ka10) -> Word:
    """What the VMM lets run: users whose storage begins in core and does not wrap around its end.

    The hardware cannot keep a user from the block that the relocation register points to.
    """
    end = state.base.zero_extend(9) + state.bound.zero_extend(9)
    return (state.base <= state.last) & (end < 256) & state.running


def _ka10_fits(guest: Ka10, private: Ka10) -> Word:
    """The guest's core lies inside the real core, behind the monitor's locations; User In-out is clear.

    What location 41 calls is in the monitor's core, and no accumulator: the call stores the PC word there.
    """
    end = private.user_base.zero_extend(9) + guest.last.zero_extend(9)
    inside = (private.user_base != 0) & (end <= private.last.zero_extend(9))
    handler = right(private.memory.load(Word(ADDRESS, 0o41)))
    called = _ka10_owns(guest, private, handler) & ~is_accumulator(handler)
    return inside & called & private.running & ~private.flags.user_io


def _ka10_owns(guest: Ka10, private: Ka10, address: Word) -> Word:
    return address[17:10] - private.user_base > guest.last


def ka10_techniques() -> dict[str, Technique[Ka10]]:
    """Trap and emulate in user mode."""
    plain: Technique[Ka10] = Technique(
        "ring-deprivileging",
        "the whole guest in user mode, relocated (Popek and Goldberg's VM map)",
        map=_ka10_map,
        owned=KA10_OWNED,
        replaced=_replaced(KA10_OWNED),
        shadowed=KA10_OWNED,
        delivered=("user_bound", "user_base"),  # what was in use
        deprivileged=lambda state: state.flags.user == 1,
        guest=_ka10_guest,
        private=_ka10_fits,
        owns_address=_ka10_owns,
        entries=TRAPS_ONLY,
        guest_address=lambda private, address: shifted(address, private.user_base),
        source=SOURCE,
    )
    return {plain.name: plain}


def _ks10_start(private: Ks10) -> Word:
    return private.process_map.load(private.ubr)[10:0]


def _ks10_map(guest: Ks10, private: Ks10) -> Ks10:
    """Guest page p is real page start + p, where the VMM's user process table begins."""
    hardware, start = private.copy(), _ks10_start(private)
    for name in ("pc", *ACCUMULATORS, "executing", "ir", "pxct", "context"):
        hardware[name] = guest[name]
    # How the processors are built.
    hardware.floating, hardware.double_floating = guest.floating, guest.double_floating
    hardware.flags = guest.flags.value
    hardware.flags.user = TRUE
    hardware.flags.user_io = private.flags.user_io
    hardware.paging = Word(1, 1)
    base = ite(guest.paging, guest.base, Word(11, 0))
    hardware.base = base + start
    bound = ite(guest.paging, guest.bound, Word(9, 0o777))
    left = guest.last - base
    hardware.bound = ite(bound.zero_extend(11) <= left, bound, left[8:0])
    hardware.memory = _moved(guest, private, start, guest.last)
    return hardware


def _ks10_guest(state: Ks10) -> Word:
    """What the VMM lets run: users whose pages begin in core and do not wrap around its end.

    Where a trap flag is up, the next instruction is not begun: the processor traps, which the model leaves out.
    """
    end = state.base.zero_extend(12) + state.bound.zero_extend(12)
    inside = (state.base <= state.last) & (end < 2048)
    return inside & state.running & (state.pxct == 0) & ~state.flags.trap_1 & ~state.flags.trap_2


def _ks10_fits(guest: Ks10, private: Ks10) -> Word:
    """The guest's core lies inside the real core, behind the monitor's pages; User In-out is clear.

    The user process table, to which monitor calls go, is in the monitor's core.
    """
    start = _ks10_start(private)
    end = start.zero_extend(12) + guest.last.zero_extend(12)
    inside = (start != 0) & (end <= private.last.zero_extend(12)) & (private.ubr - start > guest.last)
    return inside & private.running & ~private.flags.user_io


def _ks10_owns(guest: Ks10, private: Ks10, address: Word) -> Word:
    return address[19:9] - _ks10_start(private) > guest.last


def ks10_techniques() -> dict[str, Technique[Ks10]]:
    """Trap and emulate in user mode."""
    plain: Technique[Ks10] = Technique(
        "ring-deprivileging",
        "the whole guest in user mode, paged (Popek and Goldberg's VM map)",
        map=_ks10_map,
        owned=KS10_OWNED,
        replaced=_replaced(KS10_OWNED),
        shadowed=KS10_OWNED,
        deprivileged=lambda state: state.flags.user == 1,
        guest=_ks10_guest,
        private=_ks10_fits,
        owns_address=_ks10_owns,
        entries=TRAPS_ONLY,
        guest_address=lambda private, address: shifted(address, _ks10_start(private)),
        source=SOURCE,
    )
    return {plain.name: plain}
