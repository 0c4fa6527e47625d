"""The configuration rules V1-V23: predicates over a configuration, three-valued.

Texts, sources and confidence are data (`popek_specs/ia64/vti.toml`); here is what each rule asks.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping
from typing import Final

import attrs

from .configuration import FACTS, UNNUMBERED, VAC_BITS, VDC_BITS, VtiConfiguration

# PSR bits by number (vol. 2, figure 3-2).
BE, IC, I, DT, SI, DB, TB, RT, IS, IT, SS, VM = 1, 13, 14, 17, 23, 24, 26, 27, 34, 36, 40, 46  # noqa: E741
CPL: Final = 3 << 32

Answer = bool | None
"""Kept, broken, or (None) not decided by what is given."""


class Consequence(enum.Enum):
    """What breaking a rule means, worst first."""

    REJECT = "reject"  # PAL refuses
    UNSAFE = "unsafe"  # the guest can hurt the VMM
    UNDEFINED = "undefined"  # the manual leaves it undefined
    UNFAITHFUL = "unfaithful"  # the guest can see a difference
    VMM_DEFECT = "vmm-defect"  # the VMM cannot do its work


@attrs.frozen
class VtiRule:
    """One rule.

    Attributes:
        id: V1 to V23.
        text: what must hold.
        consequence: of breaking it.
        why: the consequence in words.
        confidence: H, M or L, for the rule as stated.
        source: document and page.
        kept: the predicate.
    """

    id: str
    text: str
    consequence: Consequence
    why: str
    confidence: str
    source: str
    kept: Callable[[VtiConfiguration], Answer]


@attrs.frozen
class VtiJudgement:
    """A configuration against every rule.

    Attributes:
        broken: rules that are broken, in order.
        undecided: rules that what is given does not decide.
        kept: the other rules.
    """

    broken: tuple[VtiRule, ...]
    undecided: tuple[VtiRule, ...]
    kept: tuple[VtiRule, ...]

    @property
    def outcome(self) -> str:
        """`rejected`, `unsafe`, `undefined`, `unfaithful`, `vmm-defect`, else `undecided` or `sound`."""
        for consequence in Consequence:
            if any(rule.consequence is consequence for rule in self.broken):
                return "rejected" if consequence is Consequence.REJECT else consequence.value
        return "undecided" if self.undecided else "sound"


# -- three-valued logic ----------------------------------------------------------------------------


def _not(a: Answer) -> Answer:
    return None if a is None else not a


def _and(*answers: Answer) -> Answer:
    if False in answers:
        return False
    return None if None in answers else True


def _or(*answers: Answer) -> Answer:
    if True in answers:
        return True
    return None if None in answers else False


def _implies(a: Answer, b: Answer) -> Answer:
    return _or(_not(a), b)


def _psr(value: int | None, ones: tuple[int, ...] = (), zeros: tuple[int, ...] = ()) -> Answer:
    """PSR bits that must be 1 and 0."""
    if value is None:
        return None
    return all(value >> n & 1 for n in ones) and not any(value >> n & 1 for n in zeros)


def _aligned(value: int | None, size: int) -> Answer:
    return None if value is None else value % size == 0


def _given(c: VtiConfiguration, what: str) -> bool:
    return what in c.dedicated


# -- the rules -----------------------------------------------------------------------------------------


def _supported(c: VtiConfiguration) -> Answer:
    known_vac, known_vdc = (sum(1 << b for b in bits.values()) for bits in (VAC_BITS, VDC_BITS))
    # Bits of later processors have no known number: a bit beyond the known ones may be one of them.
    parts = [
        None
        if word is None or (word & ~known and word & ~known < 1 << known.bit_length() + 2)
        else not word & ~known
        for word, known in ((c.vac, known_vac), (c.vdc, known_vdc))
    ]
    return _and(*parts)


def _guest_psr(c: VtiConfiguration) -> Answer:
    fixed = _psr(c.machine_psr, ones=(VM, DT, IT, RT, IC))
    return _and(fixed, _or(_psr(c.machine_psr, ones=(SI,)), c.option("gitc")))


def _timer_read(c: VtiConfiguration) -> Answer:
    real, virtual = _psr(c.machine_psr, zeros=(SI,)), _psr(c.vpsr, ones=(SI,))
    return _not(_and(_not(c.option("gitc")), real, virtual))


def _features(c: VtiConfiguration) -> Answer:
    if c.bit("a_tf") is None or c.vcpuid is None or c.cpuid is None:
        return True if c.bit("a_tf") else None
    if len(c.vcpuid) < 5 or len(c.cpuid) < 5:
        return _implies(_not(c.bit("a_tf")), None)
    return _implies(_not(c.bit("a_tf")), c.vcpuid[4] >> 32 == c.cpuid[4] >> 32)


def _identification(c: VtiConfiguration) -> Answer:
    if c.vcpuid is None:
        return _implies(c.bit("a_from_cpuid"), None)
    return _implies(c.bit("a_from_cpuid"), len(c.vcpuid) == 5 and c.vcpuid[3] & 0xFF <= 4)


def _placement(c: VtiConfiguration) -> Answer:
    same = None if None in (c.virt_env_vaddr, c.buffer_virtual) else c.virt_env_vaddr == c.buffer_virtual
    buffer = _and(_aligned(c.buffer_physical, 4096), _aligned(c.buffer_virtual, 4096))
    return _and(_aligned(c.vpd_base, FACTS["vpd"]["alignment"]), same, buffer, c.buffer_pinned)


def _all_off(c: VtiConfiguration) -> Answer:
    # The bits without a number count as 0 where nothing is said of them.
    later = _and(*(_not(bool(c.bit(name))) for name in UNNUMBERED))
    return _and(None if c.vac is None else c.vac == 0, None if c.vdc is None else c.vdc == 0, later)


def _accelerated(c: VtiConfiguration) -> Answer:
    return _or(None if c.vac is None else c.vac != 0, bool(c.a_tf), bool(c.a_ic_um))


def _resumption(c: VtiConfiguration) -> Answer:
    if c.resume is None:
        return None
    collecting = _psr(c.vpsr, ones=(IC,))
    return _or(c.resume == "handler", collecting, _all_off(c))


def _service_entry(c: VtiConfiguration) -> Answer:
    level = None if c.service_psr is None else not c.service_psr & CPL
    return _and(_psr(c.service_psr, ones=(DT, RT, IT), zeros=(BE, I, IS, SS, DB, TB, VM)), level)


def _off_unless(bits: tuple[str, ...], what: str) -> Callable[[VtiConfiguration], Answer]:
    return lambda c: _or(_given(c, what), _and(*(_not(c.bit(bit)) for bit in bits)))


def _registers(c: VtiConfiguration) -> Answer:
    debug = _off_unless(("d_ibr_dbr",), "debug")(c)
    return _and(debug, _off_unless(("d_pmc", "d_to_pmd"), "counters")(c))


def _clock_offset(c: VtiConfiguration) -> Answer:
    return _implies(c.option("gitc"), _and(c.gitc_available, c.ito_programmed))


PREDICATES: Final[Mapping[str, Callable[[VtiConfiguration], Answer]]] = {
    "V1": lambda c: _not(_and(c.bit("a_int"), c.bit("d_extint"))),
    "V2": _supported,
    # Unless the VMM promises otherwise, the guest maps such pages itself.
    "V3": lambda c: _or(c.bit("d_vmsw"), c.promotion_pages is False),
    "V5": _off_unless(("d_extint",), "external-interrupts"),
    "V6": _off_unless(("d_itm",), "timer"),
    "V7": _registers,
    "V8": lambda c: _not(bool(c.bit("d_psr_i"))),
    "V9": _guest_psr,
    "V10": _timer_read,
    "V11": _clock_offset,
    "V12": _features,
    "V13": _identification,
    "V14": lambda c: c.option("opcode"),
    "V15": lambda c: _or(c.option("cause"), c.decodes_opcode),
    "V16": _placement,
    "V16a": lambda c: None if c.vpd_mapped is None else c.vpd_mapped == "itr+dtr",
    "V17": lambda c: _implies(_accelerated(c), c.syncs),
    "V18": _resumption,
    "V19": _service_entry,
    "V20": lambda c: c.iva_is_host_ivt,
    "V21": lambda c: c.same_options,
    "V22": lambda c: c.vmm_hidden,
    "V23": lambda c: c.vm_feature,
}

RULES: Final[tuple[VtiRule, ...]] = tuple(
    VtiRule(
        row["id"], row["text"], Consequence(row["consequence"]), row["why"], row["confidence"], row["source"],
        PREDICATES[row["id"]],
    )
    for row in FACTS["rules"]
)  # fmt: skip


# The rules that look at vac and vdc alone.
BIT_RULES: Final = ("V1", "V2", "V3", "V5", "V6", "V7", "V8")


def judge(configuration: VtiConfiguration, *, only: Collection[str] | None = None) -> VtiJudgement:
    """Every rule, or those named, against a configuration."""
    rules = [rule for rule in RULES if only is None or rule.id in only]
    answers = [(rule, rule.kept(configuration)) for rule in rules]
    return VtiJudgement(
        tuple(rule for rule, kept in answers if kept is False),
        tuple(rule for rule, kept in answers if kept is None),
        tuple(rule for rule, kept in answers if kept is True),
    )
