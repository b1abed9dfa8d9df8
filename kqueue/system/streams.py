"""Descriptors 0, 1 and 2: what is opened gets the lowest number that is free, so where they are closed, as some
launchers leave them, a socket to a database becomes "standard output", and whatever prints writes into it.
"""

import os
import sys

#: Of the standard streams, in the order of their descriptors.
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


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
    """The same for a whole program: what it prints goes nowhere then, and nothing that prints fails."""
    secure()
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False, encoding="utf-8", errors="replace"))  # noqa: SIM115
