"""The configuration rules V1 to V23, and reading configurations."""

from __future__ import annotations

import re
from typing import Any

import pytest

from popek.architectures.ia64.vti.configuration import (
    ConfigurationError,
    VtiConfiguration,
    from_mapping,
    load,
)
from popek.architectures.ia64.vti.rules import PREDICATES, RULES, Consequence, judge
from popek_specs.ia64 import table

IC, SI, DT, RT, IT, VM = 1 << 13, 1 << 23, 1 << 17, 1 << 27, 1 << 36, 1 << 46

# What Xen and KVM set up, and everything else in order.
SOUND: dict[str, Any] = {
    "vac": 0x7F,
    "vdc": 0x1,
    "promotion_pages": True,
    "machine_psr": VM | DT | IT | RT | IC | SI,
    "vpsr": IC,
    "config_options": 0x301,
    "same_options": True,
    "gitc_available": False,
    "ito_programmed": False,
    "vcpuid": (1, 2, 3, 4, 0x500000005),
    "cpuid": (1, 2, 3, 4, 0x500000006),
    "a_tf": False,
    "decodes_opcode": False,
    "vpd_base": 0x8000,
    "virt_env_vaddr": 0x10000,
    "buffer_physical": 0x1000,
    "buffer_virtual": 0x10000,
    "buffer_pinned": True,
    "vpd_mapped": "itr+dtr",
    "syncs": True,
    "resume": "normal",
    "service_psr": DT | RT | IT,
    "iva_is_host_ivt": True,
    "vmm_hidden": True,
    "vm_feature": True,
}


def configuration(**changes: Any) -> VtiConfiguration:
    return VtiConfiguration(**{**SOUND, **changes})


def test_the_rules_are_those_of_the_facts() -> None:
    assert [rule.id for rule in RULES] == [row["id"] for row in table("vti.toml")["rules"]]
    assert set(PREDICATES) == {rule.id for rule in RULES}
    assert {rule.confidence for rule in RULES} <= {"H", "M", "L"}
    assert all(rule.source for rule in RULES)


def test_what_xen_and_kvm_set_is_sound() -> None:
    judgement = judge(configuration())
    assert judgement.broken == ()
    assert judgement.undecided == ()
    assert judgement.outcome == "sound"


BREAKS: list[tuple[str, dict[str, Any], str]] = [
    ("V1", {"vdc": 0x3, "dedicated": ("external-interrupts",)}, "rejected"),
    ("V2", {"vac": 1 << 30}, "rejected"),
    ("V3", {"vdc": 0}, "unsafe"),
    ("V5", {"vdc": 0x3, "vac": 0x7E}, "unsafe"),
    ("V6", {"vdc": 1 | 1 << 5}, "unsafe"),
    ("V7", {"vdc": 1 | 1 << 2}, "unfaithful"),
    ("V7", {"vdc": 1 | 1 << 3}, "unfaithful"),
    ("V7", {"vdc": 1 | 1 << 4}, "unfaithful"),
    ("V8", {"d_psr_i": True}, "unsafe"),
    ("V9", {"machine_psr": DT | IT | RT | IC | SI}, "unsafe"),
    ("V9", {"machine_psr": VM | DT | IT | RT | IC}, "unsafe"),
    ("V9", {"machine_psr": VM | DT | IT | RT | SI}, "unsafe"),
    ("V10", {"machine_psr": VM | DT | IT | RT | IC, "vpsr": IC | SI}, "unsafe"),
    ("V11", {"config_options": 0x701}, "rejected"),
    ("V12", {"cpuid": (1, 2, 3, 4, 5)}, "unfaithful"),
    ("V13", {"vcpuid": (1, 2, 3, 5, 0x500000005)}, "unfaithful"),
    ("V14", {"config_options": 0x201}, "rejected"),
    ("V15", {"config_options": 0x101}, "vmm-defect"),
    ("V16", {"vpd_base": 0x4000}, "undefined"),
    ("V16", {"virt_env_vaddr": 0x20000}, "undefined"),
    ("V16", {"buffer_pinned": False}, "undefined"),
    ("V16a", {"vpd_mapped": "dtc"}, "undefined"),
    ("V17", {"syncs": False}, "unfaithful"),
    ("V18", {"vpsr": 0}, "undefined"),
    ("V19", {"service_psr": DT | RT | IT | IC << 1}, "undefined"),
    ("V19", {"service_psr": DT | RT}, "undefined"),
    ("V19", {"service_psr": DT | RT | IT | 1 << 32}, "undefined"),
    ("V20", {"iva_is_host_ivt": False}, "undefined"),
    ("V21", {"same_options": False}, "undefined"),
    ("V22", {"vmm_hidden": False}, "unsafe"),
    ("V23", {"vm_feature": False}, "rejected"),
]


@pytest.mark.parametrize(("rule", "changes", "outcome"), BREAKS)
def test_a_broken_rule_is_named(rule, changes, outcome) -> None:
    judgement = judge(configuration(**changes))
    assert rule in {r.id for r in judgement.broken}
    assert judgement.outcome == outcome


def test_every_rule_can_break() -> None:
    assert {rule for rule, _, _ in BREAKS} == {rule.id for rule in RULES}


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("V3", {"vdc": 0, "promotion_pages": False}),
        ("V5", {"vdc": 0x3, "vac": 0x7E, "dedicated": ("external-interrupts",)}),
        ("V6", {"vdc": 1 | 1 << 5, "dedicated": ("timer",)}),
        ("V7", {"vdc": 1 | 1 << 2, "dedicated": ("debug",)}),
        ("V9", {"machine_psr": VM | DT | IT | RT | IC, "config_options": 0x701}),
        ("V11", {"config_options": 0x701, "gitc_available": True, "ito_programmed": True}),
        ("V12", {"cpuid": (1, 2, 3, 4, 5), "a_tf": True}),
        ("V15", {"config_options": 0x101, "decodes_opcode": True}),
        ("V17", {"vac": 0, "syncs": False}),
        ("V18", {"vpsr": 0, "resume": "handler"}),
        ("V18", {"vpsr": 0, "vac": 0, "vdc": 0}),
    ],
)
def test_what_repairs_or_excuses_a_rule(rule, changes) -> None:
    assert rule in {r.id for r in judge(configuration(**changes)).kept}


def test_all_zero_control_words_are_unsafe_and_d_vmsw_repairs_them() -> None:
    assert judge(VtiConfiguration(vac=0, vdc=0)).outcome == "unsafe"
    assert judge(VtiConfiguration(vac=0, vdc=1)).broken == ()


def test_rules_that_nothing_decides_are_undecided() -> None:
    judgement = judge(VtiConfiguration())
    assert judgement.outcome != "sound"
    assert {"V9", "V14", "V18", "V20"} <= {rule.id for rule in judgement.undecided}
    # A bit that may be one of the unnumbered later ones is neither known nor reserved.
    assert "V2" in {rule.id for rule in judge(configuration(vac=1 << 7)).undecided}


def test_the_worst_consequence_decides() -> None:
    assert judge(configuration(vdc=0, vm_feature=False)).outcome == "rejected"
    assert [c.value for c in Consequence][:2] == ["reject", "unsafe"]


# -- reading ----------------------------------------------------------------------------------------


def test_a_file_is_read_as_toml_or_json(tmp_path) -> None:
    toml = tmp_path / "xen.toml"
    toml.write_text('vac = 0x7f\nvdc = "0x1"\ndedicated = ["timer"]\nvcpuid = [1, 2, 3, 4, 5]\n')
    expected = VtiConfiguration(name=str(toml), vac=0x7F, vdc=1, dedicated=("timer",), vcpuid=(1, 2, 3, 4, 5))
    assert load(str(toml)) == expected
    other = tmp_path / "xen.json"
    other.write_text('{"name": "xen", "vac": "0x7f", "promotion_pages": false}')
    assert load(str(other)) == VtiConfiguration(name="xen", vac=0x7F, promotion_pages=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vca": 1}, "unknown field 'vca'; did you mean vdc or vac?"),
        ({"vac": "seven"}, "vac: expected a number such as 0x7f, not 'seven'"),
        ({"vac": True}, "vac: expected a number"),
        ({"vac": -1}, "vac: expected a number of 64 bits"),
        ({"buffer_pinned": "yes"}, "buffer_pinned: expected true or false, not 'yes'"),
        ({"resume": "fast"}, "resume: expected one of normal, handler, not 'fast'"),
        ({"resume": 3}, "resume: expected text, not 3"),
        ({"dedicated": ["disk"]}, "dedicated: expected external-interrupts"),
        ({"vcpuid": 5}, "vcpuid: expected a list, not 5"),
        ({"dedicated": "timer"}, "dedicated: expected a list, not 'timer'"),
    ],
)
def test_a_bad_value_gives_one_line_with_file_and_field(values, message) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_mapping(values, name="x.toml")
    assert str(caught.value).startswith("x.toml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_gives_one_line(tmp_path) -> None:
    for name, content in (("a.toml", "vac = = 1"), ("b.json", "{"), ("c.json", "[]")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ConfigurationError, match=re.escape(name)):
            load(str(tmp_path / name))
    with pytest.raises(ConfigurationError, match=r"missing\.toml"):
        load(str(tmp_path / "missing.toml"))
