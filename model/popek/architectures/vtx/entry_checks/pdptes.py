"""Guest page-directory-pointer-table entries (E.3.1.6)."""

from __future__ import annotations

from popek.architectures.vtx.view import Decision, Value, View, on, select

from .registry import NOT_IA32E, CheckGroup, Condition, checker, refuses

check = checker(CheckGroup("pdptes", "Guest page-directory-pointer-table entries", refuses(2), stage=2))

PAE_PAGING = (
    NOT_IA32E,
    Condition("guest CR0.PG = 1", lambda v: v.GUEST_CR0 & 1 << 31 != 0),
    Condition("guest CR4.PAE = 1", lambda v: v.GUEST_CR4 & 0x20 != 0),
)


def _in_memory(v: View, number: int) -> Value:
    return v.read((v.GUEST_CR3 & 0xFFFF_FFE0) + 8 * number, 8)


def _legal(v: View, entry: Value) -> Decision:
    return (entry & 1 == 0) | (entry & (v.cap.beyond_physical | 0x1E6) == 0)


def _register(number: int) -> None:
    field = f"GUEST_PDPTE{number}"

    def holds(v: View) -> Decision:
        ept = on(v.sec, 1)
        # An entry that is not asked for reads as 0, which is legal.
        with_ept = select(ept, lambda: getattr(v, field), 0)
        without = select(ept == False, lambda: _in_memory(v, number), 0)  # noqa: E712
        return _legal(v, with_ept) & _legal(v, without)

    check(
        f"GUEST-PDPTE-{number + 1:02}",
        PAE_PAGING,
        holds,
        f"PDPTE {number} ({{{field}}} with EPT, else in memory at {{GUEST_CR3}}) is present and has reserved "
        "bits: 2:1, 8:5 or beyond the physical-address width ({maxphyaddr})",
        # Without EPT some processors look at the entries only when the entry changes CR3.
        tolerated=lambda v: v.sec & 2 == 0,
    )


for _number in range(4):
    _register(_number)
