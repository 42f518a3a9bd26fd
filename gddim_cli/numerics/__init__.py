"""Numerical methods that know no diffusion: quadrature, flows of matrix equations, the DCT, noise by seed and index."""
