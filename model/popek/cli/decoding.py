"""`--bytes`: an instruction named by its machine code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .errors import UserError

if TYPE_CHECKING:
    from popek.kernel.code import DecodedInstruction

Bytes = Annotated[
    str | None, Parameter(name="--bytes", help="Instead of INSTRUCTION: its machine code, in hexadecimal.")
]
Bits = Annotated[
    int | None,
    Parameter(
        help="With --bytes: the size of code in bits, where the machine has several; the widest by default."
    ),
]


def decoded(
    machine: str, instruction: str | None, code: str | None, bits: int | None
) -> DecodedInstruction | None:
    """What `--bytes` names, None without it; refuses both or neither of it and an instruction."""
    if code is None:
        if instruction is None:
            raise UserError("explain: expected an instruction, or its machine code with --bytes")
        if bits is not None:
            raise UserError(f"--bits {bits}: expected only with --bytes")
        return None
    if instruction is not None:
        raise UserError(f"--bytes: expected no instruction beside it, not {instruction!r}")
    from popek.kernel.code import DecodingError
    from popek.machines import codes

    known = codes()
    if machine not in known:
        raise UserError(f"--bytes: there is no decoder for {machine}, only for {' and '.join(known)}")
    reader = known[machine]
    try:
        raw = bytes.fromhex(code)
    except ValueError:
        raise UserError(f"--bytes {code!r}: expected hexadecimal bytes such as '0f 01 e0'") from None
    try:
        found = reader.decode(raw, reader.modes[0] if bits is None else bits)
    except DecodingError as error:
        raise UserError(f"--bytes: {error}") from None
    if found.length != len(raw):
        rest = raw[found.length :].hex(" ")
        raise UserError(
            f"--bytes: expected one instruction; after {found.text} ({found.form}) follows {rest}"
        )
    return found
