"""Facts about RISC-V: where simulators differ from the model, and what the manual says."""
