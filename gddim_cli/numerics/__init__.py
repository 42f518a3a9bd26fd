"""Numerical methods that do not depend on diffusions: quadrature, matrix flows, the DCT, products of blocks, noise."""
