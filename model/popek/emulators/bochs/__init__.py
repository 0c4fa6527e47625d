"""The Bochs emulator: a ROM run, and thousands of single steps in one boot."""
