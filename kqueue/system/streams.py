"""Descriptors 0, 1 and 2: what is opened gets the lowest number that is free, so where they are closed, as some
launchers leave them, a socket to a database becomes "standard output", and whatever prints writes into it.
"""

import io
import os
import sys

#: The standard streams that are written to, by their descriptors. Standard input stays None where it was closed:
#: who reads it is told, instead of finding an input that has ended.
_WRITTEN = {1: "stdout", 2: "stderr"}


def secure() -> None:
    """Open the null device on each of 0, 1 and 2 that is closed. To be called before anything is opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(opened, number)
                os.close(opened)


def secure_program() -> None:
    """The same for a whole program: what it prints goes nowhere then, and nothing that prints fails: a character
    that the locale cannot say is shown escaped.
    """
    secure()
    for number, name in _WRITTEN.items():
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
        elif stream is None:
            setattr(sys, name, open(number, "w", closefd=False, encoding="utf-8", errors="replace"))  # noqa: SIM115
