"""What the tests of the kernel share."""

from __future__ import annotations

import pytest

from popek.solving.choice import VARIABLE


@pytest.fixture(params=["bitwuzla", "z3"])
def each_solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs once with either solver."""
    monkeypatch.setenv(VARIABLE, request.param)
