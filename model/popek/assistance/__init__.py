"""Hardware assistance: what each instruction asks of the controls, and configurations judged and found."""
