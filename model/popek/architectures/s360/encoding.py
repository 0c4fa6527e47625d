"""Operation codes, formats, and instructions as bytes (GA22-7000, appendix "Lists of Instructions")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from popek.kernel.instruction import Instruction

# Mnemonic: format and operation code.  S, RRE and SSE instructions have two bytes of code, all others one.
OPCODES: Final[Mapping[str, tuple[str, int]]] = {
    "SPM": ("RR", 0x04), "BALR": ("RR", 0x05), "BCTR": ("RR", 0x06), "BCR": ("RR", 0x07),
    "SSK": ("RR", 0x08), "ISK": ("RR", 0x09), "SVC": ("I", 0x0A), "BASR": ("RR", 0x0D),
    "LTR": ("RR", 0x12), "XR": ("RR", 0x17), "LR": ("RR", 0x18), "AR": ("RR", 0x1A), "SR": ("RR", 0x1B),
    "STH": ("RX", 0x40), "LA": ("RX", 0x41), "STC": ("RX", 0x42), "IC": ("RX", 0x43), "BAL": ("RX", 0x45),
    "BCT": ("RX", 0x46), "BC": ("RX", 0x47), "LH": ("RX", 0x48), "BAS": ("RX", 0x4D), "ST": ("RX", 0x50),
    "CL": ("RX", 0x55), "L": ("RX", 0x58), "C": ("RX", 0x59), "A": ("RX", 0x5A), "S": ("RX", 0x5B),
    "SSM": ("SI0", 0x80), "LPSW": ("SI0", 0x82), "DIAGNOSE": ("SI", 0x83), "WRD": ("SI", 0x84),
    "RDD": ("SI", 0x85), "STM": ("RS", 0x90), "TM": ("SI", 0x91), "MVI": ("SI", 0x92), "TS": ("SI0", 0x93),
    "NI": ("SI", 0x94), "CLI": ("SI", 0x95), "OI": ("SI", 0x96), "LM": ("RS", 0x98),
    "SIO": ("S", 0x9C00), "SIOF": ("S", 0x9C01), "TIO": ("S", 0x9D00), "CLRIO": ("S", 0x9D01),
    "HIO": ("S", 0x9E00), "HDV": ("S", 0x9E01), "TCH": ("S", 0x9F00),
    "STNSM": ("SI", 0xAC), "STOSM": ("SI", 0xAD), "SIGP": ("RS", 0xAE), "MC": ("SI", 0xAF),
    "STMC": ("RS", 0xB0), "LRA": ("RX", 0xB1), "STIDP": ("S", 0xB202), "STIDC": ("S", 0xB203),
    "SCK": ("S", 0xB204), "STCK": ("S", 0xB205), "SCKC": ("S", 0xB206), "STCKC": ("S", 0xB207),
    "SPT": ("S", 0xB208), "STPT": ("S", 0xB209), "SPKA": ("S", 0xB20A), "IPK": ("S", 0xB20B),
    "PTLB": ("S", 0xB20D), "SPX": ("S", 0xB210), "STPX": ("S", 0xB211), "STAP": ("S", 0xB212),
    "IVSK": ("RRE", 0xB223), "IAC": ("RRE", 0xB224), "EPAR": ("RRE", 0xB226), "ESAR": ("RRE", 0xB227),
    "ISKE": ("RRE", 0xB229), "RRBE": ("RRE", 0xB22A), "SSKE": ("RRE", 0xB22B), "TPROT": ("SSE", 0xE501),
    "RRB": ("S", 0xB213), "STCTL": ("RS", 0xB6), "LCTL": ("RS", 0xB7), "LMC": ("RS", 0xB8),
    "CS": ("RS", 0xBA), "MVC": ("SS", 0xD2), "CLC": ("SS", 0xD5),
    "LPR": ("RR", 0x10), "LNR": ("RR", 0x11), "LCR": ("RR", 0x13), "NR": ("RR", 0x14), "CLR": ("RR", 0x15),
    "OR": ("RR", 0x16), "CR": ("RR", 0x19), "MR": ("RR", 0x1C), "DR": ("RR", 0x1D), "ALR": ("RR", 0x1E),
    "SLR": ("RR", 0x1F), "MVCL": ("RR", 0x0E), "CLCL": ("RR", 0x0F), "EX": ("RX", 0x44), "CH": ("RX", 0x49),
    "AH": ("RX", 0x4A), "SH": ("RX", 0x4B),
    "M": ("RX", 0x5C), "D": ("RX", 0x5D), "MH": ("RX", 0x4C), "CVD": ("RX", 0x4E), "CVB": ("RX", 0x4F),
    "N": ("RX", 0x54), "O": ("RX", 0x56), "X": ("RX", 0x57),
    "AL": ("RX", 0x5E), "SL": ("RX", 0x5F), "BXH": ("RS", 0x86), "BXLE": ("RS", 0x87), "SRL": ("RS", 0x88),
    "SLL": ("RS", 0x89), "SRA": ("RS", 0x8A), "SLA": ("RS", 0x8B), "SRDL": ("RS", 0x8C), "SLDL": ("RS", 0x8D),
    "SRDA": ("RS", 0x8E), "SLDA": ("RS", 0x8F), "XI": ("SI", 0x97), "CDS": ("RS", 0xBB), "CLM": ("RS", 0xBD),
    "STCM": ("RS", 0xBE), "ICM": ("RS", 0xBF), "MVN": ("SS", 0xD1), "MVZ": ("SS", 0xD3), "NC": ("SS", 0xD4),
    "OC": ("SS", 0xD6), "XC": ("SS", 0xD7), "TR": ("SS", 0xDC), "TRT": ("SS", 0xDD), "MVCIN": ("SS", 0xE8),
    "ZAP": ("SS", 0xF8), "CP": ("SS", 0xF9), "AP": ("SS", 0xFA), "SP": ("SS", 0xFB),
    "MVO": ("SS", 0xF1), "PACK": ("SS", 0xF2), "UNPK": ("SS", 0xF3),
}  # fmt: skip

_HALFWORDS: Final = {
    "RR": 1,
    "I": 1,
    "RX": 2,
    "RS": 2,
    "SI": 2,
    "SI0": 2,
    "S": 2,
    "RRE": 2,
    "SS": 3,
    "SSE": 3,
}


def halfwords(mnemonic: str) -> int:
    """The length of an instruction: 1, 2 or 3 halfwords."""
    return _HALFWORDS[OPCODES[mnemonic][0]]


def encode(instruction: Instruction, operands: Mapping[str, int]) -> bytes:
    """The instruction with these operand parts, as it lies in storage."""
    parts = {name.removeprefix("operand "): number for name, number in operands.items()}
    layout, code = OPCODES[instruction.mnemonic]
    first, second, third = _registers(instruction, parts)
    immediate = parts.get("I2", parts.get("I", 0))

    def storage(position: int) -> bytes:
        number = next(
            (n.removesuffix(".b") for n in parts if n.startswith(f"D{position}(") and n.endswith(".b")), None
        )
        if number is None:
            return b"\0\0"
        return (parts[f"{number}.b"] << 12 | parts[f"{number}.d"]).to_bytes(2, "big")

    match layout:
        case "RR":
            return bytes((code, first << 4 | second))
        case "I":
            return bytes((code, immediate))
        case "RX":
            return bytes((code, first << 4 | parts["D2(X2,B2).x"])) + storage(2)
        case "RS":
            return bytes((code, first << 4 | parts.get("M3", third))) + storage(2)
        case "SI":
            return bytes((code, immediate)) + storage(1)
        case "SI0":
            return bytes((code, 0)) + (storage(2) if "D2(B2).b" in parts else storage(1))
        case "S":
            return code.to_bytes(2, "big") + storage(2)
        case "RRE":
            return code.to_bytes(2, "big") + bytes((0, first << 4 | second))
        case "SSE":
            return code.to_bytes(2, "big") + storage(1) + storage(2)
        case _:
            lengths = instruction.settings["size"] - 1
            if "other" in instruction.settings:
                lengths = lengths << 4 | instruction.settings["other"] - 1
            return bytes((code, lengths)) + storage(1) + storage(2)


def _registers(instruction: Instruction, parts: Mapping[str, int]) -> tuple[int, int, int]:
    """R1 (or M1), R2 and R3."""
    for name, number in parts.items():
        if name.startswith("R1,R3="):
            return number, 0, (number + instruction.settings["count"] - 1) % 16
    return parts.get("R1", parts.get("M1", 0)), parts.get("R2", 0), parts.get("R3", 0)
