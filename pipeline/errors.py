"""Errors that end a job on purpose. Any other exception is a bug and keeps its traceback."""


class UserError(Exception):
    """Wrong configuration or input: one line with the option or file, its value, and what to do. Exit code 2."""


class WorkError(Exception):
    """The configuration is right, but the work failed (disk full, too many failures): one line. Exit code 1."""


class OutOfMemory(WorkError):
    """The device has too little memory even for the smallest batch."""


class DeviceLost(WorkError):
    """The device no longer works in this process; a new process may be able to use it."""
