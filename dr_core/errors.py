"""Typed errors. Each says what was wrong, where, and what to do; ``exit_code`` is what a job returns."""

from __future__ import annotations

import errno


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


def typed(error: BaseException) -> BaseException:
    """Return what an operating system's refusal (also one that Spark reports) means here; other errors as they are.

    What a library makes of an interrupt in its midst is an interrupt.
    """
    origin: BaseException | None = error
    while origin is not None:
        if isinstance(origin, KeyboardInterrupt):
            return origin
        origin = origin.__cause__ or origin.__context__
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        return TryAgain(
            f"the disk is full ({_last_line(error)}): free some space; the same command goes on where it stopped"
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"no permission ({error}): choose another folder, or give this user the right to it")
    return error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "No space left" in line]
    return lines[-1] if lines else str(error)
