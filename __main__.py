"""`python -m vidatt` is the command `vidatt`."""

from .cli.main import main

if __name__ == "__main__":
    main()
