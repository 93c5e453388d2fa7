"""What can end a job on purpose. Everything else that is raised is a bug and keeps its traceback."""


class UserError(Exception):
    """Wrong configuration or input: one line that names the thing, the value and the way out. Exit 2."""


class WorkError(Exception):
    """Right configuration, but the work failed (disk full, too many failures): one line. Exit 1."""


class OutOfMemory(WorkError):
    """A device's memory was too little even for the least."""


class DeviceLost(WorkError):
    """The device answers nothing any more in this process; another process may go on."""
