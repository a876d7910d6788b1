"""``python -m segue``: the command line, without its script."""

from segue.cli import main

if __name__ == "__main__":
    main()
