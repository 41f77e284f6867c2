"""`python -m srucli` is the `srucli` command."""

from srucli.cli import main

main()
