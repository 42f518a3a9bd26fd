"""Benchmarks of metrics against network evaluations: plans of cells, their results, and tables and plots of these."""
