"""Solvers fitted to a network: multistep methods whose times and matrices bring the images close to converged ones."""
