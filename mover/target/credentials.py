"""Keys to sign with: found the way each cloud's own tools find them, and renewed while a job runs.

One :class:`SignIn` serves every request to a destination, whichever sender sends it. Keys with an end are fetched anew
before it; keys that a store refuses are looked up once more, because a file, a process or a role may have newer ones by
now. The order is that of the clouds: the URL (keys, or the profile it names), then for OSS and COS the variables of
Alibaba and Tencent Cloud, then botocore's chain (environment, profiles that assume a role, web identity,
credential_process, files, container, EC2 instance), where the role of an ECS or CVM instance takes the place of
Amazon's for OSS and COS.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from botocore import exceptions as boto
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.session import Session

from mover.config_secret import MASK
from mover.target.cloud_keys import CLOUDS, Cloud, MetadataSilent
from mover.target.url import ObjectDestination

_log = logging.getLogger(__name__)
_SILENT = (boto.HTTPClientError, boto.MetadataRetrievalError, MetadataSilent)
CONFIGURED = (
    boto.ProfileNotFound,
    boto.ConfigParseError,
    boto.ConfigNotFound,
    boto.InvalidConfigError,
    boto.PartialCredentialsError,
    boto.InfiniteLoopConfigError,
    boto.UnknownCredentialError,
)
CONFIGURATION_HINT = "check aws_profile= and AWS_PROFILE, AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE"
# What a store that refuses them needs, by the place the keys came from.
_RENEWING = {
    "url": "keys in a URL can not be renewed: use a profile, a role or credential_process for long jobs",
    "env": "variables of a running process can not be renewed: use a profile, a role or credential_process instead",
}


class NoKeys(Exception):
    """There are none to sign with. The text has no secret, and no text of a library that might have one.

    ``silent``: the service that has them did not answer, which another try may find better. ``hint``: what to do, where
    that is known better than in general.
    """

    def __init__(self, words: str, *, silent: bool = False, hint: str | None = None) -> None:
        super().__init__(words)
        self.silent = silent
        self.hint = hint


class SignIn:
    """The keys of one destination. Thread safe; ``keys`` and ``renew`` block while files and services are asked.

    ``offset`` is what the store's clock is ahead of this machine's, in seconds, once a signature was refused for it.
    """

    def __init__(self, destination: ObjectDestination) -> None:
        self._destination = destination
        self._cloud: Cloud | None = CLOUDS.get(destination.profile.device_type)
        self._lock = threading.Lock()
        self._found: Any = None
        self._last: ReadOnlyCredentials | None = None
        self._secrets: set[str] = set()
        self.generation = 0
        self.offset = 0.0

    @property
    def method(self) -> str:
        """Where the keys come from, in botocore's words ("env", "iam-role" ...) or "url"; "" before they were used."""
        found = self._found
        return "" if found is None else str(found.method)

    @property
    def how_to_renew(self) -> str:
        """What to do about keys that have expired for good."""
        return _RENEWING.get(self.method, f"renew what they come from ({self.method or 'nowhere yet'})")

    def keys(self) -> ReadOnlyCredentials:
        """Keys that are good now, fetched anew when they end soon. Raises NoKeys."""
        with self._lock:
            if self._found is None:
                self._found = self._look()
            found = self._found
        return self._note(_asked(found.get_frozen_credentials))

    def renew(self, generation: int) -> bool:
        """Look for the keys anew, from the beginning, because the store refused what was signed in ``generation``.

        Whether there are others now. Many requests may find out at the same time: the first looks. Raises NoKeys.
        """
        with self._lock:
            if generation != self.generation:
                return True
            old = self._last
            found = self._look()
            new = self._note(_asked(found.get_frozen_credentials))
            self._found = found
            self.generation += 1
        changed = old is None or (new.access_key, new.token) != (old.access_key, old.token)
        _log.info(
            "the store refused the keys: %s from %s", "there are new ones" if changed else "the same", self.method
        )
        return changed

    @property
    def temporary(self) -> bool:
        """Whether the keys have a session token, and so an end."""
        return self._last is not None and self._last.token is not None

    def hide(self, text: str) -> str:
        """``text``, which a store said, without secrets of the keys so far: some stores repeat what they were told."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def _note(self, keys: ReadOnlyCredentials) -> ReadOnlyCredentials:
        if keys is not self._last:
            self._secrets = self._secrets | {secret for secret in (keys.secret_key, keys.token) if secret}
            self._last = keys
        return keys

    def _look(self) -> Any:
        given = self._destination
        if given.access_id is not None:
            return Credentials(given.access_id, given.access_key, given.session_token, method="url")
        if (
            given.aws_profile is None
            and self._cloud is not None
            and (found := self._cloud.from_environment()) is not None
        ):
            return found
        # A session of its own each time: the chain remembers what it has read.
        session = Session(profile=given.aws_profile)
        if self._cloud is not None:
            _asked(lambda: session.get_component("credential_provider").remove("iam-role"))
        found = _asked(session.get_credentials)
        if found is None and given.aws_profile is None and self._cloud is not None:
            found = _asked(self._cloud.from_services)
        if found is None:
            raise NoKeys("no credentials were found")
        return found


def _asked(what: Any) -> Any:
    """``what()``, with every way in which the chain can fail as NoKeys.

    ``from None``: the texts of these errors quote what processes and services said.
    """
    try:
        return what()
    except _SILENT as error:
        raise NoKeys(f"the service that has the credentials did not answer ({_name(error)})", silent=True) from None
    except boto.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code") or "an error")
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        words = f"STS refused {error.operation_name} with {code}"
        raise NoKeys(words, silent=status >= 500 or code.startswith("Throttl")) from None
    except boto.CredentialRetrievalError as error:
        provider = error.kwargs.get("provider", "the chain")
        raise NoKeys(f"{provider} did not give any credentials that can be used") from None
    except CONFIGURED as error:
        raise NoKeys(f"the AWS configuration can not be used ({_name(error)})", hint=CONFIGURATION_HINT) from None
    except RuntimeError:
        # botocore's word for keys that are fetched and have ended already.
        raise NoKeys("the credentials that were fetched have expired already, by this machine's clock") from None
    except (boto.BotoCoreError, OSError, ValueError, KeyError, TypeError) as error:
        raise NoKeys(f"the credentials could not be read ({_name(error)})") from None


def _name(error: Exception) -> str:
    return type(error).__name__
