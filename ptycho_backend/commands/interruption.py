"""End of a command on a signal; apart from the commands, because the program starts with it."""

from __future__ import annotations

import signal


class Interrupted(BaseException):
    """Command that ended on a signal; `saved` describes the files that it leaves."""

    def __init__(self, saved: str = "", number: int = signal.SIGINT) -> None:
        self.saved, self.signal = saved, number
        super().__init__(saved)
