"""The errors medgan raises on purpose; every other exception is a defect."""


class InputError(ValueError):
    """What the user gave cannot be used: the message says what was wanted, what came, and where. Exit code 2."""


class JobError(RuntimeError):
    """The work was accepted and then failed. Exit code 1."""


class Diverged(ArithmeticError):
    """A loss or a validation metric stopped being finite; the trial is over, the worker group is not."""
