"""The command line: one module a command, which parses, calls and renders. Only here are typer and rich known."""
