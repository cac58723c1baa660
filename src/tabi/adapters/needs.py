"""Say which package is missing where an adapter's library is not installed."""

from types import TracebackType

__all__ = ["Needs"]


class Needs:
    """Around the imports of an adapter.

    Args:
        package: what to install.

    Raises:
        ModuleNotFoundError: it is not there.
    """

    def __init__(self, package: str) -> None:
        self._package = package

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ModuleNotFoundError):
            text = f"this adapter needs {self._package}, which is not installed: pip install {self._package}"
            raise ModuleNotFoundError(text, name=error.name) from error
