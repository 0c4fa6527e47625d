"""What comparisons of x86 instructions share, in every mode."""
