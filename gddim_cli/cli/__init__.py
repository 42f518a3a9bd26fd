"""The command line: one module per command, which parses, calls and prints. Only this package uses typer and rich."""
