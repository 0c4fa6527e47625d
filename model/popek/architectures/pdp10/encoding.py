"""The words of PDP-10 instructions: 9 bits of opcode, 4 of accumulator, 18 of address.

Input-output instructions have 3 bits of 1s, 7 of device and 3 of function in the place of opcode and
accumulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from popek.kernel.instruction import Instruction

OPCODES: Final[Mapping[str, int]] = {
    "MOVE": 0o200, "MOVEI": 0o201, "MOVEM": 0o202, "EXCH": 0o250, "HRRZ": 0o550, "SETZM": 0o402, "AND": 0o404,
    "ADD": 0o270, "SUB": 0o274, "AOJ": 0o340, "AOJN": 0o346, "SOJG": 0o367, "AOS": 0o350, "CAIE": 0o302,
    "JUMPE": 0o322, "SKIPE": 0o332, "TLNE": 0o603, "JFCL": 0o255, "PUSH": 0o261, "POP": 0o262, "POPJ": 0o263,
    "PUSHJ": 0o260, "JSR": 0o264, "JSP": 0o265, "JSA": 0o266, "JRA": 0o267, "XCT": 0o256, "PXCT": 0o256,
    "MAP": 0o257, "UMOVE": 0o704, "UMOVEM": 0o705, "LUUO": 0o000, "MUUO": 0o040,
}  # fmt: skip
JRST: Final = 0o254
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
        opcode = OPCODES[name] + number("operand U", 0) + number("operand L", 0)
        code = opcode << 4 | number("operand AC", 0) | number("operand F", 0) | number("operand P", 0)
    return code << 23 | index << 18 | address
