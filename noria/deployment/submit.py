"""Work whose result is a future: done at once, or in a thread of its own that nobody waits for at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
Submit = Callable[[Callable[[], T]], "Future[T]"]
"""Does work, at once or in a thread; errors are in the future."""


def at_once(work: Callable[[], T]) -> Future[T]:
    """`Submit` without a thread; what ends the process, such as KeyboardInterrupt, goes to the caller."""
    future: Future[T] = Future()
    _settle(future, work, Exception)
    return future


def in_thread(work: Callable[[], T]) -> Future[T]:
    """`Submit` for work that may hang; unlike an executor's, its thread does not keep the process from ending."""
    future: Future[T] = Future()
    threading.Thread(target=_settle, args=(future, work, BaseException), name="engine-work", daemon=True).start()
    return future


def _settle(future: Future[T], work: Callable[[], T], kept: type[BaseException]) -> None:
    """Do the work; errors of the kind `kept` are raised where the result is asked for, as with every executor."""
    try:
        future.set_result(work())
    except kept as error:
        future.set_exception(error)
