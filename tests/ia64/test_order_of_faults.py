"""Faults in the order of the manual's operation sections, one after the other (SDM vol. 3; vol. 2, table 5-3).

Everything that can go wrong goes wrong at first, and the first fault of the page is taken; then that cause is
mended, and the next fault is taken; at the end the instruction completes.
"""

from __future__ import annotations

from collections.abc import Collection

import pytest

from popek.architectures.ia64.state import Ia64
from popek.kernel.words import Word

from .machine_room import completed, ia64, put, trapped

IL, NAT, RF = "Illegal Operation fault", "Register NaT Consumption fault", "Reserved Register/Field fault"
PR, VF, DFP = "Privileged Register fault", "Virtualization fault", "Disabled FP-register fault"
UNIMPLEMENTED, MISS = "Unimplemented Data Address fault", "Data TLB fault"
RIGHTS, UNALIGNED = "Data Access Rights fault", "Unaligned Data Reference fault"

TRANSLATION = (("unimplemented", UNIMPLEMENTED), ("no translation", MISS), ("no right", RIGHTS))
ADDRESS = (("NaT address", NAT), *TRANSLATION, ("unaligned", UNALIGNED))
VALUE = (("NaT address", NAT), ("NaT value", NAT), *TRANSLATION, ("unaligned", UNALIGNED))
TARGET, FLOATING = (("target 0", IL),), (("target 0", IL), ("disabled", DFP))
BYTE = tuple(step for step in ADDRESS if step[1] != UNALIGNED)
BYTE_VALUE = tuple(step for step in VALUE if step[1] != UNALIGNED)

# Form: the page of volume 3 whose operation section says so, the faults in its order.
ORDER = {
    "ld1 r = [r]": ("ld", (*TARGET, *BYTE)),
    **{f"ld{size} r = [r]": ("ld", (*TARGET, *ADDRESS)) for size in (2, 4, 8, 16)},
    "ld8.fill r = [r]": ("ld", (*TARGET, *ADDRESS)),
    "st1 [r] = r": ("st", BYTE_VALUE),
    **{f"st{size} [r] = r": ("st", VALUE) for size in (2, 4, 8, 16)},
    "st8.spill [r] = r": ("st", ADDRESS),
    "xchg1 r = [r], r": ("xchg", (*TARGET, *BYTE_VALUE)),
    "cmpxchg1 r = [r], r": ("cmpxchg", (*TARGET, *BYTE_VALUE)),
    **{f"xchg{size} r = [r], r": ("xchg", (*TARGET, *VALUE)) for size in (2, 4, 8)},
    **{f"cmpxchg{size} r = [r], r": ("cmpxchg", (*TARGET, *VALUE)) for size in (2, 4, 8)},
    "cmp8xchg16 r = [r], r": ("cmpxchg", (*TARGET, *VALUE)),
    "fetchadd4 r = [r], inc3": ("fetchadd", (*TARGET, *ADDRESS)),
    "fetchadd8 r = [r], inc3": ("fetchadd", (*TARGET, *ADDRESS)),
    "lfetch [r]": ("lfetch", ()),
    "lfetch.fault [r]": ("lfetch", BYTE),
    "getf.sig r = f": ("getf", FLOATING),
    "getf.exp r = f": ("getf", FLOATING),
    "setf.sig f = r": ("setf", FLOATING),
    "setf.exp f = r": ("setf", FLOATING),
    "ldf8 f = [r]": ("ldf", (*FLOATING, *ADDRESS)),
    "ldf8.s f = [r]": ("ldf", FLOATING),
    "ldf.fill f = [r]": ("ldf", (*FLOATING, *ADDRESS)),
    "stf8 [r] = f": ("stf", (("disabled", DFP), ("NaT address", NAT), ("NaTVal", NAT), *ADDRESS[1:])),
    "stf.spill [r] = f": ("stf", (("disabled", DFP), *ADDRESS)),
    **{
        f"{name} f = f, f": (name.split(".")[0], FLOATING)
        for name in ("fmerge.s", "fmerge.ns", "fmerge.se", "fand", "fandcm", "for", "fxor")
    },
    "fselect f = f, f, f": ("fselect", FLOATING),
    "chk.s f, imm25": ("chk", (("disabled", DFP),)),
    "chk.s r, imm25": ("chk", ()),
    "br.cloop imm25": ("br", (("not in the last slot", IL),)),
    "brp imm25": ("brp", ()),
    "brp b": ("brp", ()),
    "fsetc sf, imm7, imm7": ("fsetc", (("reserved precision", RF),)),
    "fclrf sf": ("fclrf", ()),
    "fchkf sf, imm25": ("fchkf", ()),
    "mov ar.k = r": ("mov ar", (("NaT value", NAT), ("CPL 3", PR))),
    "mov ar.k = imm8": ("mov ar", (("CPL 3", PR),)),
    "mov r = ar.k": ("mov ar", TARGET),
    "mov ar.itc = r": ("mov ar", (("NaT value", NAT), ("CPL 3", PR), ("PSR.vm", VF))),
    "mov ar.itc = imm8": ("mov ar", (("CPL 3", PR), ("PSR.vm", VF))),
    **{
        f"mov ar.{name} = r": ("mov ar", (("NaT value", NAT),)) for name in ("lc", "ec", "ccv", "csd", "unat")
    },
    **{f"mov ar.{name} = imm8": ("mov ar", ()) for name in ("lc", "ec", "ccv", "csd", "unat")},
    **{
        f"mov ar.{name} = r": ("mov ar", (("NaT value", NAT), ("reserved field", RF)))
        for name in ("rsc", "pfs", "fpsr")
    },
    **{f"mov ar.{name} = imm8": ("mov ar", (("reserved field", RF),)) for name in ("rsc", "pfs", "fpsr")},
    **{
        f"mov ar.{name} = r": ("mov ar", (("eager RSE", IL), ("NaT value", NAT)))
        for name in ("bspstore", "rnat")
    },
    **{f"mov ar.{name} = imm8": ("mov ar", (("eager RSE", IL),)) for name in ("bspstore", "rnat")},
    **{
        f"mov r = ar.{name}": ("mov ar", TARGET)
        for name in ("rsc", "pfs", "lc", "ec", "ccv", "csd", "unat", "fpsr", "bsp")
    },
    **{f"mov r = ar.{name}": ("mov ar", (*TARGET, ("eager RSE", IL))) for name in ("bspstore", "rnat")},
    "mov ar(ignored) = r": ("mov ar", (("NaT value", NAT),)),
    "mov r = ar(ignored)": ("mov ar", TARGET),
}
NEVER = ("mov ar.bsp = r", "mov ar(reserved) = r", "mov r = ar(reserved)")

PAGE, LINE = 0x4000, 1 << 55
RESERVED = {"rsc": 1 << 5, "pfs": 1 << 38, "fpsr": 1 << 58}
CLEAR = {"fpsr": 0x9804C0270033F}


def state(form: str, causes: Collection[str]) -> Ia64:
    """r2 has the address, r3 the value, f2 to f5 values; the page of the address is the reader's and writer's."""
    level = 0 if form in SYSTEM and "CPL 3" not in causes else 3
    made = Ia64.reset(psr__dt=1, psr__cpl=level, psr__vm=int("PSR.vm" in causes))
    made.psr.ri = 1 if "not in the last slot" in causes else 2
    made.psr.dfl = int("disabled" in causes)
    made.ar.rsc.mode = 3 if "eager RSE" in causes else 0
    address = PAGE + LINE * ("unimplemented" in causes) + ("unaligned" in causes)
    register = form.removeprefix("mov ar.").split(" ")[0]
    value = RESERVED.get(register, 0) if "reserved field" in causes else CLEAR.get(register, 0)
    made = put(made, 2, address, nat=int("NaT address" in causes))
    made = put(made, 3, value, nat=int("NaT value" in causes))
    for number in range(2, 6):
        made.fr = made.fr.store(Word(7, number), Word(82, 0x1FFFE << 64 if "NaTVal" in causes else number))
    rights = 0 if "no right" in causes else 3
    entry = 0 if "no translation" in causes else 1 | rights << 7 | 2 << 9
    made.translations = made.translations.store(Word(52, PAGE >> 12), Word(88, entry))
    return made


def operands(form: str, causes: Collection[str]) -> list[int]:
    """Targets r1, f2; addresses r2; values r3, f3 to f5; the first of its kind otherwise."""
    target = form.split(" = ")[0].split()[-1] if " = " in form else ""
    if form.startswith("fsetc"):
        return [1, 0, 4 if "reserved precision" in causes else 0]
    bad = "reserved field" in causes
    registers = iter((1, 2, 3) if target == "r" else (3,) if target[:2] == "ar" else (2, 3))
    floating = iter((2, 3, 4, 5))
    special = {"imm8": 0x20 if bad and "rsc" in form else 0xFF if bad else 0}
    made = [
        next(registers)
        if kind in ("r", "[r]")
        else next(floating)
        if kind == "f"
        else special.get(kind, first)
        for kind, first in (
            (o.kind.name, o.kind.first.get("", 0)) for o in ia64().instructions[form].operands
        )
    ]
    if target in ("r", "f") and "target 0" in causes:
        made[0] = 0
    return made


SYSTEM = {form for form, (_, steps) in ORDER.items() if "CPL 3" in dict(steps)}


@pytest.mark.parametrize("form", ORDER)
def test_the_faults_of_the_page_come_one_after_the_other(form) -> None:
    _, steps = ORDER[form]
    for first in range(len(steps)):
        causes = [cause for cause, _ in steps[first:]]
        name, _ = trapped(form, state(form, causes), *operands(form, causes))
        assert name == steps[first][1], f"{form}: {causes}"
    completed(form, state(form, ()), *operands(form, ()))


@pytest.mark.parametrize("form", NEVER)
def test_what_cannot_be_written_or_does_not_exist(form) -> None:
    assert trapped(form, state(form, ("NaT value",)), *operands(form, ())) == (IL, None)


def test_every_form_of_these_families_has_its_order() -> None:
    families = {page for page, _ in ORDER.values()} - {"br"}
    for form, instruction in ia64().instructions.items():
        page = instruction.source.removeprefix("SDM vol. 3, ").split(";")[0].split(" (")[0]
        deferred = form in ("ld1.s r = [r]", "ld2.s r = [r]", "ld4.s r = [r]", "ld8.s r = [r]")
        timer = form in ("mov r = ar.itc", "mov r = ar.ruc")
        if page in families and not deferred and not timer:
            assert form in ORDER or form in NEVER, form
