"""The secrets that the settings name."""

from __future__ import annotations

from pathlib import Path

from mover.config import Settings
from mover.encryption.sources import KeyFile, KeySource, Kms, KmsSource, Passphrase
from mover.errors import ConfigError


def key_sources(settings: Settings) -> tuple[KeySource, ...]:
    """The secrets that were given. Raises ConfigError for a key file or a KMS that can not be used as given."""
    return sources(settings.encrypt_passphrase, settings.encrypt_key_file, settings.encrypt_kms)


def sources(passphrase: str | None, key_file: Path | None, kms: str | None) -> tuple[KeySource, ...]:
    """Those of the three that are not None. Raises ConfigError as :func:`key_sources`."""
    found: list[KeySource] = []
    if passphrase is not None:
        if not passphrase:
            raise ConfigError("the passphrase of the data keys is empty", hint="check MOVER_ENCRYPT_PASSPHRASE_FILE")
        found.append(Passphrase(passphrase))
    if key_file is not None:
        found.append(KeyFile(key_file))
    if kms is not None:
        found.append(KmsSource(open_kms(kms)))
    return tuple(found)


def open_kms(url: str) -> Kms:
    """The key service of a URL; nothing is asked yet. Raises ConfigError."""
    # Imported here: they bring what commands without a key service should not wait for.
    if url.startswith("alibaba-kms://"):
        from mover.encryption.alibaba_kms import AlibabaKms

        return AlibabaKms(url)
    from mover.encryption.aws_kms import AwsKms

    return AwsKms(url)
