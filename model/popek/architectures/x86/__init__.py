"""What the x86 machines share, 32-bit and 64-bit."""
