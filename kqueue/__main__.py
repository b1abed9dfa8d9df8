"""``python -m kqueue``: the command line."""

from kqueue.cli.main import main

if __name__ == "__main__":
    main()
