"""What is asked of machines: classes, promises, validity; the solver, evidence and counterexamples."""
