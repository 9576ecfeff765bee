"""`mover key`: the keys that a destination is encrypted with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mover.cli.command import Group
from mover.cli.ending import DONE
from mover.cli.invocation import Invocation
from mover.cli.job import with_session
from mover.errors import ConfigError

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.encryption.sources import KeySource
    from mover.rootservice.keys import KeyView
    from mover.rootservice.session import Session


@click.group(
    "key",
    cls=Group,
    help="""Look at and change the keys that a destination is encrypted with.

Data keys are random and lie wrapped at the destination; a slot is one way to unwrap them: a passphrase, a key file or a
key service. Slots come and go and no data is written again.""",
    examples=("mover key list --dest file:///mnt/backup", "mover key rotate --encrypt-key-file /etc/mover/key"),
)
def command() -> None:
    """See help."""


def _new(function: Callable[..., int]) -> Callable[..., int]:
    """The options that name a new secret; a passphrase is read from a file, never from the command line."""
    path = click.Path(path_type=Path)
    for option in (
        click.option(
            "--new-kms", metavar="URL", help="A key of a key service: aws-kms://KEY?region=NAME, or alibaba-kms."
        ),
        click.option("--new-key-file", metavar="FILE", type=path, help="A file of 32 bytes or 64 hexadecimal digits."),
        click.option("--new-passphrase-file", metavar="FILE", type=path, help="A file with a passphrase, first line."),
    ):
        function = option(function)
    return function


@command.command(
    "list",
    help="Show slots and data keys, and which slot the given key opens.",
    examples=("mover key list --dest file:///mnt/backup --json",),
)
@click.pass_obj
def show(invocation: Invocation) -> int:
    async def body(session: Session) -> KeyView:
        from mover.rootservice import keys

        return await keys.show(session)

    return _run(invocation, body)


@command.command(
    "add",
    short_help="Add a way to open the data keys.",
    help="Add a slot: another secret that opens the data keys. Needs one that does already.",
    examples=(
        "mover key add --encrypt-key-file /etc/mover/key --new-passphrase-file /root/passphrase",
        "mover key add --new-kms 'aws-kms://alias/backup?region=eu-central-1'",
    ),
)
@_new
@click.pass_obj
def add(
    invocation: Invocation, new_passphrase_file: Path | None, new_key_file: Path | None, new_kms: str | None
) -> int:
    new = _sources(new_passphrase_file, new_key_file, new_kms)
    if not new:
        raise click.UsageError("no new key is given", click.get_current_context())

    async def body(session: Session) -> KeyView:
        from mover.rootservice import keys

        return await keys.add(session, new)

    return _run(invocation, body)


@command.command(
    "rotate",
    short_help="Write with a new data key from now on.",
    help="Make a new data key, which backups and archivers that start from now on write with; what is there stays "
    "readable. With a --new option the slot that was opened is replaced by one for the new secret.",
    examples=("mover key rotate --encrypt-key-file /etc/mover/old --new-key-file /etc/mover/new",),
)
@_new
@click.pass_obj
def rotate(
    invocation: Invocation, new_passphrase_file: Path | None, new_key_file: Path | None, new_kms: str | None
) -> int:
    new = _sources(new_passphrase_file, new_key_file, new_kms)

    async def body(session: Session) -> KeyView:
        from mover.rootservice import keys

        return await keys.rotate(session, new)

    return _run(invocation, body)


@command.command(
    "remove",
    short_help="Take a way to open the data keys away.",
    help="Remove a slot by its number. The last one is not removed: nothing could be decrypted any more.",
    examples=("mover key remove 1 --dest file:///mnt/backup",),
)
@click.argument("slot", type=click.IntRange(min=1), metavar="SLOT")
@click.pass_obj
def remove(invocation: Invocation, slot: int) -> int:
    async def body(session: Session) -> KeyView:
        from mover.rootservice import keys

        return await keys.remove(session, slot)

    return _run(invocation, body)


def _sources(passphrase_file: Path | None, key_file: Path | None, kms: str | None) -> tuple[KeySource, ...]:
    from mover.encryption.given import sources

    passphrase = None
    if passphrase_file is not None:
        try:
            passphrase = (passphrase_file.read_text(encoding="utf-8").splitlines() or [""])[0]
        except (OSError, UnicodeDecodeError) as error:
            reason = str(getattr(error, "strerror", None) or "not UTF-8 text").lower()
            raise ConfigError(
                f"passphrase file {passphrase_file} cannot be read: {reason}",
                hint="name a file that this user can read, with the passphrase on its first line",
            ) from None
    return sources(passphrase, key_file, kms)


def _run(invocation: Invocation, body: Callable[[Session], Awaitable[KeyView]]) -> int:
    async def whole(session: Session, _control: Control) -> KeyView:
        return await body(session)

    view: dict[str, Any] = with_session(
        invocation, whole, need_source=False, need_catalog=False, need_keys=False, silent=True
    ).value.as_json()
    if invocation.json or not invocation.quiet:
        from mover.cli.render import show_view

        show_view(invocation, "keys", view)
    return DONE
