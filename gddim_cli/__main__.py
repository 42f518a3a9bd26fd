"""`python -m gddim_cli` is `gddim`."""

from gddim_cli.cli.main import main

if __name__ == "__main__":
    main()
