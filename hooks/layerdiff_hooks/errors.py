"""The exception of this package that is meant for a person, and one that is not."""


class LayerdiffError(Exception):
    """Something the caller can mend; `hint` says how, where that is known."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        """Keep the message and the hint apart, so that a command can print both."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Show the hint on a line of its own."""
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class ToldElsewhere(Exception):
    """This process ends because another has failed, and has said why."""
