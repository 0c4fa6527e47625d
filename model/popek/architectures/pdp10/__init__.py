"""The DEC PDP-10: the KA10 of Popek and Goldberg's example, and the KS10."""

from .ka10 import build as build_ka10
from .ks10 import build as build_ks10

MACHINES = {"pdp10-ka10": build_ka10, "pdp10-ks10": build_ks10}
