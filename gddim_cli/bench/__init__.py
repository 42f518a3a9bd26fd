"""Metrics against network evaluations: a plan of cells, measured, kept, and shown as tables and plots."""
