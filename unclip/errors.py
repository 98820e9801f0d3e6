"""The one error a user sees: a single line that names the value and the fix."""


class UnclipError(Exception):
    """Raised for anything a user can mend. `code` is the command line's exit status: 2 bad input, 1 failed at work."""

    def __init__(self, message: str, code: int = 2):
        super().__init__(message)
        self.code = code
