"""What guests of hardware-assisted VMMs share on an emulator: memory, what a step should do, and comparing."""
