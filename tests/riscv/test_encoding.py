"""The words of RV64's instructions: an independent disassembler reads what was meant."""

from __future__ import annotations

import random
import re

import capstone
from test_rules import machine

from popek.architectures.riscv.encoding import encode
from popek.architectures.riscv.instructions.zicsr import all_csrs
from popek.emulators.spike.witness import spelled
from popek.kernel.instruction import Instruction

ABI = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", *(f"a{n}" for n in range(8)),
    *(f"s{n}" for n in range(2, 12)), *(f"t{n}" for n in range(3, 7)),
]  # fmt: skip
FLOATING = [
    *(f"ft{n}" for n in range(8)), "fs0", "fs1", *(f"fa{n}" for n in range(8)), *(f"fs{n}" for n in range(2, 12)),
    *(f"ft{n}" for n in range(8, 12)),
]  # fmt: skip
REGISTERS = {name: f"x{n}" for n, name in enumerate(ABI)} | {name: f"f{n}" for n, name in enumerate(FLOATING)}
CSRS = {csr.name: str(csr.number) for csr in all_csrs()}
PSEUDO = {"fsflags": "fflags", "fsrm": "frm", "fscsr": "fcsr"}
"""CSRRW under another name, without that of the CSR."""
UNKNOWN = ("HLV", "HSV", "HFENCE", "HINVAL", "SINVAL", "SFENCE.W.INVAL", "SFENCE.INVAL.IR")
"""Capstone 5 has neither the hypervisor's instructions nor Svinval; Spike runs these words as what they are."""


def plain(text: str) -> list[str]:
    """Mnemonic and operands: registers by number, numbers in decimal, CSRs by number."""
    found = []
    for word in re.findall(r"-?[\w.]+", text):
        if re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", word):
            found.append(str(int(word, 0)))
        else:
            found.append(CSRS.get(REGISTERS.get(word, word), REGISTERS.get(word, word)))
    if found[0] in PSEUDO:
        return ["csrrw", found[1], CSRS[PSEUDO[found[0]]], found[2]]
    # The order of JALR's operands differs between assemblers; PAUSE is a FENCE.
    return sorted(found) if found[0] == "jalr" else ["fence"] if found[0] in ("pause", "fence") else found


def drawn(instruction: Instruction, rng: random.Random) -> dict[str, int]:
    """Operands for which no disassembler has a shorter name."""
    return {
        name: rng.randrange(5, (1 << width) - 5) if width > 5 else rng.randrange(5, 32)
        for operand in instruction.inputs
        for name, width in operand.part_names()
    }


def test_capstone_reads_every_form_that_it_knows() -> None:
    rng, reader = random.Random(4), capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64)
    read, unlike = 0, []
    for form, instruction in machine().instructions.items():
        for _ in range(4):
            operands = drawn(instruction, rng)
            word = encode(instruction, operands)
            (found,) = list(reader.disasm(word.to_bytes(4, "little"), 0)) or (None,)
            if found is None:
                assert form.startswith(UNKNOWN), form
                break
            wanted = plain(spelled(instruction.assembly(operands)))
            if plain(f"{found.mnemonic} {found.op_str}") != wanted:
                unlike.append((wanted, f"{found.mnemonic} {found.op_str}"))
        else:
            read += 1
    assert unlike == []
    assert read >= 323
