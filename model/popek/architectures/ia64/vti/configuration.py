"""What a VMM chooses when it sets up a virtual processor: VPD, PAL options, machine PSR.

A field that is not given is unknown, and rules that need it are undecided.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn

from popek_specs.ia64 import table

FACTS: Final = table("vti.toml")
VAC_BITS: Final[Mapping[str, int]] = {row["name"]: row["bit"] for row in FACTS["vac"] if "bit" in row}
VDC_BITS: Final[Mapping[str, int]] = {row["name"]: row["bit"] for row in FACTS["vdc"] if "bit" in row}
# Bits of later processors whose numbers are not established: given by name only.
UNNUMBERED: Final = tuple(row["name"] for row in (*FACTS["vac"], *FACTS["vdc"]) if "bit" not in row)
OPTIONS: Final[Mapping[str, int]] = {
    name: FACTS["config_options"][name] for name in ("initialize", "fr_pmc", "opcode", "cause", "gitc")
}


class ConfigurationError(ValueError):
    """A configuration cannot be read; the message is one line naming file, field and what was expected."""


@attrs.frozen(kw_only=True)
class VtiConfiguration:
    """One virtual processor as its VMM sets it up; None where it is not known.

    Attributes:
        vac, vdc: the VPD's control words (64 bits); the bits of later processors are separate.
        a_tf, a_ic_um, d_psr_i: bits of later processors, whose numbers are not established.
        promotion_pages: the guest may execute pages with access right 7.
        dedicated: what is left to the guest: `external-interrupts`, `timer`, `debug`, `counters`.
        machine_psr, vpsr: PSR while the guest runs, and the guest's PSR (64 bits).
        config_options: PAL_VP_INIT_ENV's argument (64 bits); the same on all logical processors?
        gitc_available, ito_programmed: PAL advertises gitc; the offset register is set.
        vcpuid, cpuid: the VPD's five registers; the processor's CPUID registers.
        decodes_opcode: the VMM finds the cause of an intercept from the opcode in GR25.
        vpd_base, virt_env_vaddr, buffer_physical, buffer_virtual: addresses.
        buffer_pinned: ITR and DTR map the buffer during PAL_VP_INIT_ENV and every service.
        vpd_mapped: how the VPD is mapped: none, dtc, dtr, itr+dtr.
        syncs: the VMM calls SYNC_READ before it reads and SYNC_WRITE after it writes the VPD.
        resume: normal or handler.
        service_psr: PSR at the entry of PAL's services.
        iva_is_host_ivt: IVA holds the virtual processor's host IVT from RESTORE until SAVE.
        vmm_hidden: the VMM's mappings lie where PSR.vm or region identifiers hide them.
        vm_feature: feature bit 40 is available and on.
    """

    name: str = "configuration"
    vac: int | None = None
    vdc: int | None = None
    a_tf: bool | None = None
    a_ic_um: bool | None = None
    d_psr_i: bool | None = None
    promotion_pages: bool | None = None
    dedicated: tuple[str, ...] = ()
    machine_psr: int | None = None
    vpsr: int | None = None
    config_options: int | None = None
    same_options: bool | None = None
    gitc_available: bool | None = None
    ito_programmed: bool | None = None
    vcpuid: tuple[int, ...] | None = None
    cpuid: tuple[int, ...] | None = None
    decodes_opcode: bool | None = None
    vpd_base: int | None = None
    virt_env_vaddr: int | None = None
    buffer_physical: int | None = None
    buffer_virtual: int | None = None
    buffer_pinned: bool | None = None
    vpd_mapped: str | None = None
    syncs: bool | None = None
    resume: str | None = None
    service_psr: int | None = None
    iva_is_host_ivt: bool | None = None
    vmm_hidden: bool | None = None
    vm_feature: bool | None = None

    def bit(self, name: str) -> bool | None:
        """A control bit by name: `a_int`, `d_vmsw`, ...; None when its word is not given."""
        if name in UNNUMBERED:
            value = getattr(self, name)
            return None if value is None else bool(value)
        word, bits = (self.vac, VAC_BITS) if name in VAC_BITS else (self.vdc, VDC_BITS)
        return None if word is None else bool(word >> bits[name] & 1)

    def option(self, name: str) -> bool | None:
        """A bit of config_options by name."""
        return None if self.config_options is None else bool(self.config_options >> OPTIONS[name] & 1)


DEDICABLE: Final = ("external-interrupts", "timer", "debug", "counters")
_LISTS: Final = ("dedicated", "vcpuid", "cpuid")
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "vpd_mapped": ("none", "dtc", "dtr", "itr+dtr"),
    "resume": ("normal", "handler"),
}


def _number(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"expected a number such as 0x7f, not {value!r}")
    try:
        number = int(value, 0) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"expected a number such as 0x7f, not {value!r}") from None
    if number < 0 or number >> 64:
        raise ValueError(f"expected a number of 64 bits, not {value!r}")
    return number


def _flag(value: Any, _: Any) -> bool:
    if value in (0, 1) and isinstance(value, int):
        return bool(value)
    raise ValueError(f"expected true or false, not {value!r}")


def _text(value: Any, _: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"expected text, not {value!r}")


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _number)
    converter.register_structure_hook(bool, _flag)
    converter.register_structure_hook(str, _text)
    hook = make_dict_structure_fn(VtiConfiguration, converter, _cattrs_forbid_extra_keys=True)
    converter.register_structure_hook(VtiConfiguration, hook)
    return converter


def from_mapping(values: Mapping[str, Any], *, name: str) -> VtiConfiguration:
    """A configuration from a mapping of its fields.

    Raises:
        ConfigurationError: an unknown field, or a value of the wrong kind.
    """
    known = [field.name for field in attrs.fields(VtiConfiguration)]
    for key in values:
        if key not in known:
            raise ConfigurationError(f"{name}: unknown field {key!r}{_near(key, known)}")
    converter, read = _converter(), {}
    for key, value in values.items():
        if key in _LISTS and not isinstance(value, list | tuple):
            raise ConfigurationError(f"{name}: {key}: expected a list, not {value!r}")
        try:
            # A field at a time, so that the message can name it.
            read[key] = getattr(converter.structure({key: value}, VtiConfiguration), key)
        except cattrs.BaseValidationError as error:
            raise ConfigurationError(f"{name}: {key}: {_reason(error)}") from None
    for key, choices in _CHOICES.items():
        if read.get(key) is not None and read[key] not in choices:
            raise ConfigurationError(
                f"{name}: {key}: expected one of {', '.join(choices)}, not {read[key]!r}"
            )
    for what in read.get("dedicated", ()):
        if what not in DEDICABLE:
            raise ConfigurationError(f"{name}: dedicated: expected {', '.join(DEDICABLE)}, not {what!r}")
    read.setdefault("name", name)
    return VtiConfiguration(**read)


def _reason(error: BaseException) -> str:
    """The innermost message of a structured error."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


def _near(key: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, known, 2, 0.5)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(known)}"


def load(path: str) -> VtiConfiguration:
    """A configuration from a TOML or (by its suffix `.json`) JSON file.

    Raises:
        ConfigurationError: the file cannot be read or does not describe a configuration.
    """
    try:
        return parsed(path, Path(path).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from None


def parsed(name: str, data: bytes) -> VtiConfiguration:
    """A configuration from the content of a file, which is JSON where its name says so, and otherwise TOML.

    Raises:
        ConfigurationError: it does not describe a configuration.
    """
    kind = "JSON" if name.endswith(".json") else "TOML"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name}: not UTF-8 text") from None
    try:
        values = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}: not {kind}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{name}: expected a table of fields")
    return from_mapping(values, name=name)
