"""`--bytes`: an instruction named by its machine code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .errors import UserError

if TYPE_CHECKING:
    from popek.architectures.x86.decoded import Decoded

Bytes = Annotated[
    str | None, Parameter(name="--bytes", help="Instead of INSTRUCTION: its machine code, in hexadecimal.")
]
Bits = Annotated[
    int | None,
    Parameter(help="With --bytes: the size of code, 16, 32 or 64; 64 by default for x86-64, else 32."),
]


def decoded(machine: str, instruction: str | None, code: str | None, bits: int | None) -> Decoded | None:
    """What `--bytes` names, None without it; refuses both or neither of it and an instruction."""
    if code is None:
        if instruction is None:
            raise UserError("explain: expected an instruction, or its machine code with --bytes")
        if bits is not None:
            raise UserError(f"--bits {bits}: expected only with --bytes")
        return None
    if instruction is not None:
        raise UserError(f"--bytes: expected no instruction beside it, not {instruction!r}")
    from popek.architectures.ia32 import decoding as ia32
    from popek.architectures.x86.disassembly import DecodingError
    from popek.architectures.x86_64 import decoding as x86_64

    decoders = {"ia32": (ia32.decode, 32), "x86-64": (x86_64.decode, 64)}
    if machine not in decoders:
        raise UserError(f"--bytes: there is no decoder for {machine}, only for {' and '.join(decoders)}")
    try:
        raw = bytes.fromhex(code)
    except ValueError:
        raise UserError(f"--bytes {code!r}: expected hexadecimal bytes such as '0f 01 e0'") from None
    decode, usual = decoders[machine]
    try:
        found = decode(raw, usual if bits is None else bits)
    except DecodingError as error:
        raise UserError(f"--bytes: {error}") from None
    if found.length != len(raw):
        rest = raw[found.length :].hex(" ")
        raise UserError(
            f"--bytes: expected one instruction; after {found.text} ({found.form}) follows {rest}"
        )
    return found
