"""The errors that reach a user. Each text says what, where, the value found, what was expected and what to do."""


class EdgepostError(Exception):
    """The root of them all. `exit_status` is what the command line answers with."""

    exit_status = 1


class ConfigError(EdgepostError, ValueError):
    """The configuration can't be used. `faults` holds every fault found, a line each."""

    exit_status = 2

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class UsageError(EdgepostError):
    """The command line asks for something that can't be."""

    exit_status = 2


class AlreadyRunning(EdgepostError):
    """Another agent holds the directory."""


class NoSpace(EdgepostError, OSError):
    """A file system is full. The text says how many bytes are needed and how many there are."""
