"""Musashi, a 68000 emulator, in this process, as the Python package `machine68k` has it."""

DIFFTESTS = {"m68k": {"musashi": "popek.emulators.musashi.compare:difftest"}}
