"""The words of PDP-10 instructions: 9 bits of opcode, 4 of accumulator, 18 of address.

Input-output instructions have 3 bits of 1s, 7 of device and 3 of function in the place of opcode and
accumulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from popek.kernel.instruction import Instruction

from .words_and_halves import CHANGES, COMBINING, CONDITIONS, LOGIC, MOVING, REST, SKIPS, TESTS

OPCODES: Mapping[str, int] = {
    "EXCH": 0o250, "JFCL": 0o255, "PUSH": 0o261, "POP": 0o262, "POPJ": 0o263, "PUSHJ": 0o260, "JSR": 0o264,
    "JSP": 0o265, "JSA": 0o266, "JRA": 0o267, "XCT": 0o256, "PXCT": 0o256, "MAP": 0o257, "UMOVE": 0o704,
    "UMOVEM": 0o705, "LUUO": 0o000, "UNASSIGNED": 0o000, "MUUO": 0o040, "AOBJP": 0o252, "AOBJN": 0o253,
    "ASH": 0o240, "ROT": 0o241, "LSH": 0o242, "JFFO": 0o243, "ASHC": 0o244,
    "ROTC": 0o245, "LSHC": 0o246, "BLT": 0o251, "IBP": 0o133, "ILDB": 0o134, "IDPB": 0o136, "LDB": 0o135, "DPB": 0o137,
    "UFA": 0o130, "DFN": 0o131, "FSC": 0o132,
    "ADJBP": 0o133, "DMUL": 0o116, "DDIV": 0o117,
    "ADJSP": 0o105, "DFAD": 0o110, "DFSB": 0o111, "DFMP": 0o112, "DFDV": 0o113, "DADD": 0o114, "DSUB": 0o115,
    "DMOVE": 0o120, "DMOVN": 0o121, "FIX": 0o122, "DMOVEM": 0o124, "DMOVNM": 0o125, "FIXR": 0o126, "FLTR": 0o127,
}  # fmt: skip
OPCODES = {
    **OPCODES,
    **{
        f"H{taken}{to}{rest}{mode}": code + 0o10 * number + last
        for taken, to, code in (("L", "L", 0o500), ("R", "L", 0o504), ("R", "R", 0o540), ("L", "R", 0o544))
        for number, rest in enumerate(REST)
        for last, mode in enumerate(MOVING)
    },
    **{
        f"{name}{mode}": code + last
        for name, code in (("MOVE", 0o200), ("MOVS", 0o204), ("MOVN", 0o210), ("MOVM", 0o214))
        for last, mode in enumerate(MOVING)
    },
    **{
        f"{name}{mode}": code + last
        for name, code in (
            ("ADD", 0o270),
            ("SUB", 0o274),
            ("IMUL", 0o220),
            ("MUL", 0o224),
            ("IDIV", 0o230),
            ("DIV", 0o234),
            *((name, 0o400 + 4 * n) for n, (name, _, _) in enumerate(LOGIC)),
        )
        for last, mode in enumerate(COMBINING)
    },
    **{
        f"{name}{kind}": code + 4 * rounds + last
        for name, code in (("FAD", 0o140), ("FSB", 0o150), ("FMP", 0o160), ("FDV", 0o170))
        for rounds, kinds in enumerate((("", "L", "M", "B"), ("R", "RI", "RM", "RB")))
        for last, kind in enumerate(kinds)
    },
    **{
        f"{kind}{name}": code + number
        for kind, code in (
            ("CAI", 0o300), ("CAM", 0o310), ("JUMP", 0o320), ("SKIP", 0o330), ("AOJ", 0o340), ("AOS", 0o350),
            ("SOJ", 0o360), ("SOS", 0o370),
        )
        for number, (name, _) in enumerate(CONDITIONS)
    },
    **{
        f"T{operand}{change}{skips}": 0o600 + 0o20 * c + 0o10 * (o >> 1) + 2 * last + (o & 1)
        for o, operand in enumerate(TESTS)
        for c, change in enumerate(CHANGES)
        for last, skips in enumerate(SKIPS)
    },
}  # fmt: skip
JRST: Final = 0o254
# Opcodes below 200 that a KS10 has no instruction for; 040 to 077 call the monitor, too.
KS10_UNASSIGNED: Final = (
    0, *range(0o100, 0o105), 0o106, 0o107, 0o130, 0o131, 0o141, 0o151, 0o161, 0o171,
)  # fmt: skip
FUNCTIONS: Final[Mapping[str, int]] = {
    "BLKI": 0, "DATAI": 1, "BLKO": 2, "DATAO": 3, "CONO": 4, "CONI": 5, "CONSZ": 6, "CONSO": 7,
}  # fmt: skip
DEVICES: Final[Mapping[str, int]] = {"APR": 0, "PI": 1}
# What the KS10 makes of the device codes, as opcode and accumulator.
KS10_CODES: Final[Mapping[str, int]] = {
    "APRID": 0o70000, "WRAPR": 0o70020, "RDAPR": 0o70024, "WRPI": 0o70060, "RDPI": 0o70064, "RDUBR": 0o70104,
    "CLRPT": 0o70110, "WRUBR": 0o70114, "WREBR": 0o70120, "RDEBR": 0o70124, "RDHSB": 0o70230,
    "WRHSB": 0o70270,
}  # fmt: skip


def io_code(function: str, device: int) -> int:
    """The 13 bits before the address of an input-output instruction; `device` has 7 bits."""
    return 0o7 << 10 | device << 3 | FUNCTIONS[function]


def ks10_code(name: str) -> int:
    """The 13 bits before the address of an internal input-output instruction of the KS10."""
    octal = KS10_CODES[name]
    return (octal >> 6) << 4 | (octal >> 2) & 0o17


def encode(instruction: Instruction, operands: Mapping[str, int]) -> int:
    """The word of an instruction; `operands` as `Instruction.symbols` names them.

    Raises:
        KeyError: the form has no encoding here, or an operand is missing.
    """
    name, *rest = instruction.form.replace(",", " ").split()
    number = operands.get
    index = number("operand (X)", 0)
    address = number("operand E", 0)
    if name == "JRST":
        code = JRST << 4 | (int(rest[0], 8) if rest[0].isdigit() else 0)
    elif name in KS10_CODES:
        code = ks10_code(name)
    elif name in FUNCTIONS:
        code = io_code(name, DEVICES.get(rest[0], number("operand D", 0)))
    else:
        opcode = OPCODES[name] + number("operand U", 0) + number("operand L", 0) + number("operand N", 0)
        code = opcode << 4 | sum(number(f"operand {kind}", 0) for kind in ("AC", "A", "F", "P"))
    return code << 23 | index << 18 | address
