"""The examples in the docstrings of the library are run."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "popek.errors",
    "popek.library.classes",
    "popek.library.code",
    "popek.library.running",
    "popek.library.subjects",
    "popek.library.tables",
    "popek.library.theorems",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0
    assert found.failed == 0
