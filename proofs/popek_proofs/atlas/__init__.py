"""The atlas: every machine under every technique and several configurations, with verdicts and witnesses."""

from .derivation import derive
from .entries import Asked, Atlas, AtlasEntry, Efficiency, FailedHypothesis, Form, Verdict
from .places import AtlasPlace, places

__all__ = [
    "Asked",
    "Atlas",
    "AtlasEntry",
    "AtlasPlace",
    "Efficiency",
    "FailedHypothesis",
    "Form",
    "Verdict",
    "derive",
    "places",
]
