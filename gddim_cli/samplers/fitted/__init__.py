"""Solvers fitted to a network: the times and matrices of a multistep method whose images are closest to the converged ones."""
