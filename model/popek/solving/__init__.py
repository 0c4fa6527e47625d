"""Solvers: questions as terms, engines that answer them, and what is made of their answers."""
