"""Numerical methods that know nothing of diffusions: quadrature, matrix flows, the DCT, products of blocks, noise."""
