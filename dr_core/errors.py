"""Typed errors. Each says what was wrong, where, and what to do; ``exit_code`` is what a job returns."""


class DeepRetrievalError(Exception):
    """Base of all errors raised on purpose; on its own it means a broken invariant (a bug)."""

    exit_code = 1


class ConfigError(DeepRetrievalError):
    """A configuration key or command-line argument is wrong."""

    exit_code = 2


class InputError(DeepRetrievalError):
    """A file, table or column that was named is missing or unreadable."""

    exit_code = 2


class GateRefused(DeepRetrievalError):
    """A data, health or quality gate refused the run; the live release is untouched."""

    exit_code = 3


class TryAgain(DeepRetrievalError):
    """Something temporary (another run holds the work folder); the same command may be run again."""

    exit_code = 75


class PublishConflict(TryAgain):
    """Another release went live meanwhile; nothing was changed, and this one is still there to be published."""


class ReleaseMismatch(DeepRetrievalError):
    """A model and an index of different releases were about to serve together."""

    exit_code = 1
