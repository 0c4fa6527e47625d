"""Reads VMCSs from what hypervisors print (Linux KVM, Xen and others), `NAME = value` lines, and JSON."""

from .json_input import read_line
from .model import Dump, DumpError, Remark
from .reading import read_dumps, read_text

__all__ = ["Dump", "DumpError", "Remark", "read_dumps", "read_line", "read_text"]
