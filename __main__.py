"""`python -m vidatt` is the command `vidatt`."""

from .cli.entry import run

if __name__ == "__main__":
    run()
