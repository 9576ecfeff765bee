"""A connection over the MySQL protocol for statements that only read, so that they may be asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import asyncmy
import asyncmy.errors

from mover.errors import SourceError, UnreachableError

_CONNECT_SECONDS = 10
_READ_SECONDS = 120
# Server gone, connection lost, refused, no such socket: the link is dead, the statement was a read, so try again.
_LOST = frozenset({2002, 2003, 2006, 2013, 2055, 0})
_DENIED = frozenset({1044, 1045, 1698})


class SqlConnection:
    """Made when first used and again when it breaks. Safe for concurrent callers.

    Args:
        name: of the server, for messages.
        where: address as keyword arguments of ``asyncmy.connect``, asked for with each connection.
        user, password: how to sign in. The password is in no error and no repr.
        denied, silent, refused: what to do when the sign-in is refused, nobody answers, a statement is refused.
        init_command: run when a connection is made.
    """

    def __init__(
        self,
        name: str,
        where: Callable[[], Mapping[str, Any]],
        *,
        user: str,
        password: str,
        denied: str,
        silent: str,
        refused: str | None = None,
        init_command: str | None = None,
    ) -> None:
        self._name = name
        self._where = where
        self._user = user
        self._password = password
        self._denied = denied
        self._silent = silent
        self._refused = refused
        self._init_command = init_command
        self._connection: Any = None
        self._lock = asyncio.Lock()

    async def fetch(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a read-only statement.

        Raises:
            UnreachableError: nobody answers, or the sign-in was refused.
            SourceError: the server refused the statement.
        """
        async with self._lock:
            for attempt in (1, 2):
                connection = self._connection or await self._connect()
                try:
                    async with connection.cursor() as cursor:
                        await cursor.execute(sql, args or None)
                        return list(await cursor.fetchall())
                except (asyncmy.errors.Error, OSError, TimeoutError) as error:
                    number = _number(error)
                    if number not in _LOST:
                        text = f"{self._name} refused a catalog query: {_text(error)}"
                        raise SourceError(text, hint=self._refused, sql_error=number) from None
                    self._disconnect()
                    if attempt == 2:
                        raise self._unreachable(error) from None
                except BaseException:
                    # Cancelled between request and answer: the next query would read this one's rows.
                    self._disconnect()
                    raise
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """Close it. Idempotent."""
        async with self._lock:
            self._disconnect()

    async def _connect(self) -> Any:
        where = self._where()
        try:
            self._connection = await asyncmy.connect(
                user=self._user,
                password=self._password,
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                autocommit=True,
                program_name="mover",
                init_command=self._init_command,
                **where,
            )
        except (asyncmy.errors.Error, OSError, TimeoutError) as error:
            raise self._unreachable(error) from None
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _unreachable(self, error: BaseException) -> UnreachableError:
        number = _number(error)
        hint = self._denied if number in _DENIED else self._silent
        return UnreachableError(f"{self._name} does not answer: {_text(error)}", hint=hint, sql_error=number or None)


def _number(error: BaseException) -> int:
    """The MySQL error number; 0 for what has none, which is a broken connection."""
    first = error.args[0] if error.args else 0
    return first if isinstance(error, asyncmy.errors.Error) and isinstance(first, int) else 0


def _text(error: BaseException) -> str:
    texts = [str(argument) for argument in error.args if isinstance(argument, str)]
    return texts[-1] if texts else type(error).__name__
