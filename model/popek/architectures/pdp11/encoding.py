"""The words of PDP-11 instructions (handbook, appendix B), for running them elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from popek.kernel.instruction import Instruction

from .modes import BRANCHES, CODES

# Per form: the opcode, and where each operand part goes: (part, shift), or (part, None) for a second word.
# Addressing modes are in the opcode: 1 is (R), 2 is (R)+, 4 is -(R), 6 is X(R).
_Fields = tuple[tuple[str, int | None], ...]
_FORMS: Final[Mapping[str, tuple[int, _Fields]]] = {
    "MOV R, R": (0o010000, (("R", 6), ("R 2", 0))),
    "MOV (R), R": (0o011000, (("(R)", 6), ("R", 0))),
    "MOV (R)+, R": (0o012000, (("(R)+", 6), ("R", 0))),
    "MOV R, (R)": (0o010010, (("R", 6), ("(R)", 0))),
    "MOV R, -(R)": (0o010040, (("R", 6), ("-(R)", 0))),
    "MOV R, X(R)": (0o010060, (("R", 6), ("X(R).register", 0), ("X(R).index", None))),
    "MOV R, -(SP)": (0o010046, (("R", 6),)),
    "MOV (SP)+, R": (0o012600, (("R", 0),)),
    "CLR (R)": (0o005010, (("(R)", 0),)),
    "ADD R, R": (0o060000, (("R", 6), ("R 2", 0))),
    "ADD (R), R": (0o061000, (("(R)", 6), ("R", 0))),
    "SUB R, R": (0o160000, (("R", 6), ("R 2", 0))),
    "INC R": (0o005200, (("R", 0),)),
    "TST R": (0o005700, (("R", 0),)),
    "TST (R)": (0o005710, (("(R)", 0),)),
    "SXT R": (0o006700, (("R", 0),)),
    "BR d": (0o000400, (("d", 0),)),
    "BEQ d": (0o001400, (("d", 0),)),
    "SOB R, o": (0o077000, (("R", 6), ("o", 0))),
    "JMP (R)": (0o000110, (("(R)", 0),)),
    "JMP R": (0o000100, (("R", 0),)),
    "CCC": (0o000257, ()),
    "SEC": (0o000261, ()),
    "JSR R, (R)": (0o004010, (("R", 6), ("(R)", 0))),
    "JSR PC, (R)": (0o004710, (("(R)", 0),)),
    "RTS R": (0o000200, (("R", 0),)),
    "RTS PC": (0o000207, ()),
    "EMT t": (0o104000, (("t", 0),)),
    "TRAP t": (0o104400, (("t", 0),)),
    "BPT": (0o000003, ()),
    "IOT": (0o000004, ()),
    "MTPS R": (0o106400, (("R", 0),)),
    "MFPS R": (0o106700, (("R", 0),)),
    "MFPT": (0o000007, ()),
    "HALT": (0o000000, ()),
    "WAIT": (0o000001, ()),
    "RESET": (0o000005, ()),
    "SPL n": (0o000230, (("n", 0),)),
    "RTI": (0o000002, ()),
    "RTT": (0o000006, ()),
    "MFPI R": (0o006500, (("R", 0),)),
    "MFPI SP": (0o006506, ()),
    "MFPI (R)": (0o006510, (("(R)", 0),)),
    "MTPI R": (0o006600, (("R", 0),)),
    "MTPI SP": (0o006606, ()),
    "MTPI (R)": (0o006610, (("(R)", 0),)),
    "MFPD R": (0o106500, (("R", 0),)),
    "MFPD SP": (0o106506, ()),
    "MFPD (R)": (0o106510, (("(R)", 0),)),
    "MTPD R": (0o106600, (("R", 0),)),
    "MTPD SP": (0o106606, ()),
    "MTPD (R)": (0o106610, (("(R)", 0),)),
}


def _more() -> dict[str, tuple[int, _Fields]]:
    """The forms of `data` and `modes`, made from the mnemonics' opcodes and the modes' codes."""
    found: dict[str, tuple[int, _Fields]] = {}
    modes = {"R": 0, "(R)": 1, "(R)+": 2, "@(R)+": 3, "-(R)": 4, "@-(R)": 5}
    words = {"#i": 0o27, "@#i": 0o37, "i(PC)": 0o67, "@i(PC)": 0o77}
    indexes = {"X(R)": 6, "@X(R)": 7}

    def operand(mode: str, shift: int, part: str) -> tuple[int, _Fields]:
        if mode in words:
            return words[mode] << shift, ((part, None),)
        if mode in indexes:
            return indexes[mode] << shift + 3, ((f"{part}.register", shift), (f"{part}.index", None))
        return modes[mode] << shift + 3, ((part, shift),)

    def single(mnemonic: str, opcode: int, *which: str) -> None:
        for mode in which:
            code, fields = operand(mode, 0, mode)
            found[f"{mnemonic} {mode}"] = opcode | code, fields

    def double(mnemonic: str, opcode: int, *which: tuple[str, str]) -> None:
        for src, dst in which:
            first, second = operand(src, 6, src), operand(dst, 0, f"{dst} 2" if src == dst else dst)
            found[f"{mnemonic} {src}, {dst}"] = opcode | first[0] | second[0], first[1] + second[1]

    for number, mnemonic in enumerate(
        ("CLR", "COM", "INC", "DEC", "NEG", "ADC", "SBC", "TST", "ROR", "ROL", "ASR", "ASL")
    ):
        single(mnemonic, 0o005000 + (number << 6), "R", "(R)")
        single(f"{mnemonic}B", 0o105000 + (number << 6), "R", "(R)")
    single("SWAB", 0o000300, "R", "(R)")
    single("SXT", 0o006700, "(R)")
    three = (("R", "R"), ("(R)", "R"), ("R", "(R)"))
    for mnemonic, opcode in (("CMP", 0o020000), ("BIT", 0o030000), ("BIC", 0o040000), ("BIS", 0o050000)):
        double(mnemonic, opcode, *three)
        double(f"{mnemonic}B", opcode | 0o100000, *three)
    double("MOVB", 0o110000, *three, ("(R)+", "R"))
    deferred = ("@(R)+", "@-(R)", "@X(R)", "@i(PC)")
    for mode in ("-(R)", "X(R)", "#i", "@#i", "i(PC)", *deferred):
        double("MOV", 0o010000, (mode, "R"))
    for mode in ("(R)+", "@#i", "i(PC)", *deferred):
        double("MOV", 0o010000, ("R", mode))
    for number, (mnemonic, register) in enumerate(
        (("MUL", "Rn"), ("DIV", "Re"), ("ASH", "Rn"), ("ASHC", "Rn"))
    ):
        found[f"{mnemonic} R, {register}"] = 0o070000 | number << 9, (("R", 0), (register, 6))
    for mode in ("R", "(R)"):
        code, fields = operand(mode, 0, "R 2" if mode == "R" else mode)
        found[f"XOR R, {mode}"] = 0o074000 | code, (("R", 6), *fields)
    found |= {f"{mnemonic} d": (opcode, (("d", 0),)) for mnemonic, (opcode, _) in BRANCHES.items()}
    for letter, bit in CODES.items():
        found[f"CL{letter}"], found[f"SE{letter}"] = (0o240 | bit, ()), (0o260 | bit, ())
    found["SCC"], found["NOP"] = (0o277, ()), (0o240, ())
    single("JMP", 0o000100, "(R)+", "@(R)+", "X(R)")
    code, fields = operand("X(R)", 0, "X(R)")
    found["JSR PC, X(R)"] = 0o004700 | code, fields
    for name, opcode in (("CFCC", 0), ("SETF", 1), ("SETI", 2), ("SETD", 0o11), ("SETL", 0o12)):
        found[name] = 0o170000 | opcode, ()
    for name, opcode in (("LDFPS", 0o170100), ("STFPS", 0o170200), ("STST", 0o170300)):
        single(name, opcode, "R")
    for name, opcode in (("CLRF", 0o170400), ("TSTF", 0o170500), ("ABSF", 0o170600), ("NEGF", 0o170700)):
        found[f"{name} FS"] = opcode, (("FS", 0),)
    accumulators: _Fields = (("FS", 0), ("AC", 6))
    for name, opcode in (
        ("MULF", 0o171000), ("ADDF", 0o172000), ("LDF", 0o172400), ("SUBF", 0o173000), ("CMPF", 0o173400),
        ("DIVF", 0o174400),
    ):  # fmt: skip
        found[f"{name} FS, AC"] = opcode, accumulators
    found["STF AC, FS"], found["MODF FS, AC"] = (0o174000, accumulators), (0o171400, accumulators)
    found["LDCDF FS, AC"], found["STCFD AC, FS"] = (0o177400, accumulators), (0o176000, accumulators)
    found["LDCDF (R), AC"] = 0o177410, (("(R)", 0), ("AC", 6))
    found["STCFD AC, (R)"] = 0o176010, (("(R)", 0), ("AC", 6))
    for name, opcode in (("LDEXP", 0o176400), ("LDCIF", 0o177000)):
        found[f"{name} R, AC"] = opcode, (("R", 0), ("AC", 6))
        found[f"{name} (R), AC"] = opcode | 0o10, (("(R)", 0), ("AC", 6))
    for name, opcode in (("STEXP", 0o175000), ("STCFI", 0o175400)):
        found[f"{name} AC, R"] = opcode, (("R", 0), ("AC", 6))
        found[f"{name} AC, (R)"] = opcode | 0o10, (("(R)", 0), ("AC", 6))
    found["LDF (R), AC"] = 0o172410, (("(R)", 0), ("AC", 6))
    found["STF AC, (R)"] = 0o174010, (("(R)", 0), ("AC", 6))
    found["MARK o"] = 0o006400, (("o", 0),)
    return found


_ALL: Final = {**_more(), **_FORMS}


def encode(instruction: Instruction, operands: Mapping[str, int]) -> tuple[int, ...]:
    """The 16-bit words of an instruction; `operands` as `Instruction.symbols` names them.

    Raises:
        KeyError: the form has no encoding here, or an operand is missing.
    """
    opcode, fields = _ALL[instruction.form]
    more = []
    for part, shift in fields:
        number = operands[f"operand {part}"]
        if shift is None:
            more.append(number)
        else:
            opcode |= number << shift
    return (opcode, *more)
