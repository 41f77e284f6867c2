"""`python -m srucli` is the `srucli` command."""

from srucli.cli import main

if __name__ == "__main__":
    main()
