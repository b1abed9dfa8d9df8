"""``python -m kqueue``: the command line."""

from kqueue.cli import main

if __name__ == "__main__":
    main()
