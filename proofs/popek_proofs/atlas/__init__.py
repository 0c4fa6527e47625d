"""The atlas: every machine under every technique and several configurations, with verdicts and witnesses."""

from .derivation import derive
from .entries import Asked, Atlas, Efficiency, Entry, Form, Hypothesis, Verdict
from .places import Place, places

__all__ = [
    "Asked",
    "Atlas",
    "Efficiency",
    "Entry",
    "Form",
    "Hypothesis",
    "Place",
    "Verdict",
    "derive",
    "places",
]
