"""A machine with an instruction about which a solver would have to factor a product of primes."""

from popek.kernel.machine import Machine
from popek.kernel.state import Role, State, word
from popek.kernel.technique import Technique
from popek.kernel.words import ite

PRODUCT = 2654435789 * 3141592661


class Hard(State):
    """Two factors, an accumulator and a mode."""

    mode = word(1, role=Role.MODE)  # 0 supervisor, 1 user
    p = word(64)
    q = word(64)
    acc = word(8)


hard = Machine("hard", "A machine", Hard, supervisor=lambda s: s.mode == 0, user=lambda s: s.mode == 1)
hard.techniques["plain"] = Technique(
    "plain",
    "everything in user mode",
    lambda guest, private: guest.with_changes({"mode": 1}),
    ("mode",),
    ("mode",),
    lambda s: s.mode == 1,
)


@hard.instruction("FACTOR")
def factor(cpu: Hard) -> None:
    """ACC := M where P and Q are the factors."""
    proper = (cpu.p > 1) & (cpu.q > 1) & (cpu.p < 1 << 32) & (cpu.q < 1 << 32)
    cpu.acc = ite(proper & (cpu.p * cpu.q == PRODUCT), cpu.mode.zero_extend(8), cpu.acc)
