"""The five ways in which noria says no. Each carries the fact, a hint (what to type next) and an HTTP status."""

from __future__ import annotations


class NoriaError(Exception):
    """Base of all errors that a user may meet; `str(error)` is the fact, `error.hint` what to do about it.

    `where` names the place the wrong value came from, such as `noria.toml:41`.
    """

    status = 500
    code = "internal_error"
    retryable = False

    def __init__(self, fact: str, hint: str = "", *, where: str = "") -> None:
        super().__init__(fact)
        self.fact = fact
        self.hint = hint
        self.where = where


class Invalid(NoriaError):
    """The input or the configuration is wrong; the same call cannot succeed."""

    status = 400
    code = "invalid_request_error"


class Denied(NoriaError):
    """The caller may not do this, or a gate refused it."""

    status = 401
    code = "authentication_error"


class NotFound(NoriaError):
    """The named thing does not exist."""

    status = 404
    code = "not_found_error"


class Conflict(NoriaError):
    """Somebody else changed or holds the thing in the meantime."""

    status = 409
    code = "conflict_error"


class Unavailable(NoriaError):
    """A process, a server or a package that is needed is not there now; the same call may succeed later."""

    status = 503
    code = "unavailable_error"
    retryable = True
