"""The 32-bit words of instructions, for running them elsewhere (unprivileged manual, "Instruction Set Listings")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from popek.kernel.instruction import Instruction

_OP, _OP_IMM, _OP_32, _OP_IMM_32, _LOAD, _STORE, _BRANCH, _SYSTEM, _AMO, _FP = (
    0x33, 0x13, 0x3B, 0x1B, 0x03, 0x23, 0x63, 0x73, 0x2F, 0x53,
)  # fmt: skip
_FIXED: Final = {
    "FENCE": 0x0FF0000F,
    "FENCE.I": 0x0000100F,
    "PAUSE": 0x0100000F,
    "ECALL": 0x00000073,
    "EBREAK": 0x00100073,
    "MRET": 0x30200073,
    "SRET": 0x10200073,
    "WFI": 0x10500073,
    "SFENCE.W.INVAL": 0x18000073,
    "SFENCE.INVAL.IR": 0x18100073,
}
# funct7 and funct3 of register forms, by opcode.
_REGISTERS: Final = {
    "ADD": (_OP, 0, 0), "SUB": (_OP, 0x20, 0), "SLL": (_OP, 0, 1), "SLT": (_OP, 0, 2), "SLTU": (_OP, 0, 3),
    "XOR": (_OP, 0, 4), "SRL": (_OP, 0, 5), "SRA": (_OP, 0x20, 5), "OR": (_OP, 0, 6), "AND": (_OP, 0, 7),
    "ADDW": (_OP_32, 0, 0), "SUBW": (_OP_32, 0x20, 0), "SLLW": (_OP_32, 0, 1), "SRLW": (_OP_32, 0, 5),
    "SRAW": (_OP_32, 0x20, 5), "MUL": (_OP, 1, 0), "MULHU": (_OP, 1, 3), "DIV": (_OP, 1, 4), "DIVU": (_OP, 1, 5),
    "REM": (_OP, 1, 6), "REMU": (_OP, 1, 7), "MULW": (_OP_32, 1, 0),
    "SFENCE.VMA": (_SYSTEM, 0x09, 0), "SINVAL.VMA": (_SYSTEM, 0x0B, 0), "HFENCE.VVMA": (_SYSTEM, 0x11, 0),
    "HINVAL.VVMA": (_SYSTEM, 0x13, 0), "HFENCE.GVMA": (_SYSTEM, 0x31, 0), "HINVAL.GVMA": (_SYSTEM, 0x33, 0),
    "HSV.B": (_SYSTEM, 0x31, 4), "HSV.H": (_SYSTEM, 0x33, 4), "HSV.W": (_SYSTEM, 0x35, 4), "HSV.D": (_SYSTEM, 0x37, 4),
    "LR.W": (_AMO, 0x08, 2), "LR.D": (_AMO, 0x08, 3), "SC.W": (_AMO, 0x0C, 2), "SC.D": (_AMO, 0x0C, 3),
    "AMOADD.W": (_AMO, 0x00, 2), "AMOADD.D": (_AMO, 0x00, 3), "AMOSWAP.W": (_AMO, 0x04, 2),
    "AMOSWAP.D": (_AMO, 0x04, 3), "FMV.X.D": (_FP, 0x71, 0), "FMV.D.X": (_FP, 0x79, 0),
}  # fmt: skip
# funct7 and the code in the place of rs2.
_HYPERVISOR_LOADS: Final = {
    "HLV.B": (0x30, 0), "HLV.BU": (0x30, 1), "HLV.H": (0x32, 0), "HLV.HU": (0x32, 1), "HLVX.HU": (0x32, 3),
    "HLV.W": (0x34, 0), "HLV.WU": (0x34, 1), "HLVX.WU": (0x34, 3), "HLV.D": (0x36, 0),
}  # fmt: skip
_IMMEDIATES: Final = {
    "ADDI": (_OP_IMM, 0), "SLTI": (_OP_IMM, 2), "SLTIU": (_OP_IMM, 3), "XORI": (_OP_IMM, 4), "ORI": (_OP_IMM, 6),
    "ANDI": (_OP_IMM, 7), "ADDIW": (_OP_IMM_32, 0), "JALR": (0x67, 0), "LB": (_LOAD, 0), "LH": (_LOAD, 1),
    "LW": (_LOAD, 2), "LD": (_LOAD, 3), "LBU": (_LOAD, 4), "LHU": (_LOAD, 5), "LWU": (_LOAD, 6), "FLD": (0x07, 3),
}  # fmt: skip
_SHIFTS: Final = {
    "SLLI": (_OP_IMM, 1, 0), "SRLI": (_OP_IMM, 5, 0), "SRAI": (_OP_IMM, 5, 0x400), "SLLIW": (_OP_IMM_32, 1, 0),
    "SRLIW": (_OP_IMM_32, 5, 0), "SRAIW": (_OP_IMM_32, 5, 0x400),
}  # fmt: skip
_STORES: Final = {
    "SB": (_STORE, 0),
    "SH": (_STORE, 1),
    "SW": (_STORE, 2),
    "SD": (_STORE, 3),
    "FSD": (0x27, 3),
}
_BRANCHES: Final = {"BEQ": 0, "BNE": 1, "BLT": 4, "BGE": 5, "BLTU": 6, "BGEU": 7}
_ZICSR: Final = {"CSRRW": 1, "CSRRS": 2, "CSRRC": 3, "CSRRWI": 5, "CSRRSI": 6, "CSRRCI": 7}


def encode(instruction: Instruction, operands: Mapping[str, int]) -> int:
    """The word of an instruction; `operands` as `Instruction.symbols` names them.

    Raises:
        KeyError: the form has no encoding here, or an operand is missing.
    """
    name = instruction.form.split()[0]
    if name in _FIXED:
        return _FIXED[name]
    parts = {key.removeprefix("operand "): value for key, value in operands.items()}
    rd = parts.get("rd", parts.get("fd", 0))
    rs1 = parts.get("rs1", parts.get("fs1", parts.get("(rs1)", parts.get("offset(rs1).base", 0))))
    rs2 = parts.get("rs2", parts.get("fs2", 0))
    offset = parts.get("offset(rs1).offset", parts.get("imm", 0))
    if name in _ZICSR:
        return (
            int(instruction.settings["csr"].number) << 20
            | parts.get("uimm", rs1) << 15
            | _ZICSR[name] << 12
            | rd << 7
            | _SYSTEM
        )
    if name in _REGISTERS:
        opcode, funct7, funct3 = _REGISTERS[name]
        return funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
    if name in _HYPERVISOR_LOADS:
        funct7, code = _HYPERVISOR_LOADS[name]
        return funct7 << 25 | code << 20 | rs1 << 15 | 4 << 12 | rd << 7 | _SYSTEM
    if name in _SHIFTS:
        opcode, funct3, kind = _SHIFTS[name]
        amount = kind | parts.get("shamt", parts.get("shamtw", 0))
        return amount << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
    if name in _STORES:
        opcode, funct3 = _STORES[name]
        return offset >> 5 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | (offset & 31) << 7 | opcode
    if name in _BRANCHES:
        return _branch(parts["branch"] << 1) | rs2 << 20 | rs1 << 15 | _BRANCHES[name] << 12 | _BRANCH
    if name == "JAL":
        return _jump(parts["jump"] << 1) | rd << 7 | 0x6F
    if name in ("LUI", "AUIPC"):
        return parts["upper"] << 12 | rd << 7 | (0x37 if name == "LUI" else 0x17)
    opcode, funct3 = _IMMEDIATES[name]
    return offset << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode


def _branch(distance: int) -> int:
    """The scattered immediate of a branch."""
    return (
        (distance >> 12 & 1) << 31
        | (distance >> 5 & 63) << 25
        | (distance >> 1 & 15) << 8
        | (distance >> 11 & 1) << 7
    )


def _jump(distance: int) -> int:
    """The scattered immediate of JAL."""
    return (
        (distance >> 20 & 1) << 31
        | (distance >> 1 & 0x3FF) << 21
        | (distance >> 11 & 1) << 20
        | (distance >> 12 & 0xFF) << 12
    )
