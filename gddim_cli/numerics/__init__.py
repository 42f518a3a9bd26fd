"""Numerical methods without knowledge of diffusions: quadrature, matrix flows, the DCT, products of blocks, noise."""
