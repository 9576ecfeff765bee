"""``python -m mover`` is the command line."""

from mover.cli import main

if __name__ == "__main__":
    main()
