"""Benchmarks, which measure a metric as a function of NFE: plans, their results, and tables and plots of results."""
