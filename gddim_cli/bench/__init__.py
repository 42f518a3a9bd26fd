"""Distance against evaluations: a plan of cells, measured one after another, kept, and told as tables and plots."""
