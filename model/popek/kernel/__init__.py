"""The kernel: words, exploration, state and roles, instruction, outcome, machine.

Nothing here imports a solver, and concrete execution never needs one.
"""
