"""Where the bucket answers and with which keys, as botocore's configuration chain has it, without its service model."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import botocore
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.credentials import Credentials
from botocore.session import Session

from mover.target.s3_sender import CONNECT_SECONDS
from mover.target.url import ObjectDestination

# Amazon's partitions with a domain of their own; all others are in amazonaws.com.
_DOMAINS = {"cn-": "amazonaws.com.cn", "us-iso-": "c2s.ic.gov", "us-isob-": "sc2s.sgov.gov"}
_HOST_LABELS = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Site:
    """The bucket's address. ``auth_path`` is what the old signature wants before a key, "/bucket" in any case."""

    tls: bool
    host: str
    port: int
    netloc: str  # as the Host header has it
    path: str  # before a key: "" or "/bucket"
    bucket_path: str
    region: str
    proxy: Proxy | None
    context: ssl.SSLContext | None

    @property
    def origin(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.netloc}"

    def path_of(self, key: str | None) -> str:
        """The path of a URL for a key, or for the bucket."""
        return (self.path if key is None else f"{self.path}/{quote(key, safe='-_.~/')}") or "/"

    def connect(self) -> HTTPConnection:
        """A new connection, blocking. Raises OSError, also for a proxy that refuses."""
        first = (self.host, self.port) if self.proxy is None else (self.proxy.host, self.proxy.port)
        connection = HTTPConnection(*first, timeout=CONNECT_SECONDS)
        if self.tls and self.proxy is not None:
            connection.set_tunnel(self.host, self.port, self.proxy.headers)
        try:
            connection.connect()
            if self.context is not None:
                connection.sock = self.context.wrap_socket(connection.sock, server_hostname=self.host)
            # From here on the event loop keeps the time: a socket without a timeout sends a part in one system call.
            connection.sock.settimeout(None)
        except BaseException:
            connection.close()
            raise
        return connection


class Surroundings:
    """What the machine says: credentials, region, certificates, from environment, files and roles. Blocks."""

    def __init__(self, destination: ObjectDestination) -> None:
        self._destination = destination
        self._session = Session()
        self._credentials: Any = None

    def credentials(self) -> Any:
        """Keys to sign with now, refreshed when they must be; None when there are none."""
        if self._credentials is None:
            given = self._destination
            if given.access_id is not None:
                self._credentials = Credentials(given.access_id, given.access_key, given.session_token)
            else:
                self._credentials = self._session.get_credentials()
        return None if self._credentials is None else self._credentials.get_frozen_credentials()

    def site(self, region: str | None = None) -> Site:
        """The address. Raises ValueError, OSError for certificates that can not be read, and botocore's errors."""
        destination = self._destination
        region = region or destination.region or self._session.get_config_variable("region") or "us-east-1"
        endpoint = destination.endpoint or self._endpoint() or f"https://s3.{region}.{_domain(region)}"
        parts = urlsplit(endpoint)
        tls = parts.scheme == "https"
        host, netloc, path = parts.hostname or "", parts.netloc, parts.path.rstrip("/")
        if destination.addressing == "virtual" and _fits_a_host(destination.bucket, tls):
            host, netloc = f"{destination.bucket}.{host}", f"{destination.bucket}.{netloc}"
        elif destination.addressing != "cname":  # a domain of the bucket's own
            path = f"{path}/{destination.bucket}"
        port = parts.port or (443 if tls else 80)
        netloc = netloc.removesuffix(":443" if tls else ":80")
        proxy = _proxy(parts.scheme, netloc)
        context = self._trust() if tls else None
        return Site(tls, host, port, netloc, path, f"/{destination.bucket}", region, proxy, context)

    def _endpoint(self) -> str | None:
        provider = ConfiguredEndpointProvider(
            full_config=self._session.full_config,
            scoped_config=self._session.get_scoped_config(),
            client_name="s3",
        )
        found = provider.provide()
        return None if found is None else str(found)

    def _trust(self) -> ssl.SSLContext:
        bundle = self._session.get_config_variable("ca_bundle")
        if bundle:
            return ssl.create_default_context(cafile=str(bundle))
        context = ssl.create_default_context()
        # What the library trusts, for machines that have no certificates installed.
        context.load_verify_locations(os.path.join(os.path.dirname(botocore.__file__), "cacert.pem"))
        return context


def _domain(region: str) -> str:
    return next((domain for start, domain in _DOMAINS.items() if region.startswith(start)), "amazonaws.com")


def _fits_a_host(bucket: str, tls: bool) -> bool:
    """Whether the bucket can be a host's name: a certificate for ``*.host`` covers one label only."""
    labels = bucket.split(".")
    return (not tls or len(labels) == 1) and all(_HOST_LABELS.match(label) for label in labels)


def _proxy(scheme: str, netloc: str) -> Proxy | None:
    proxies = getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    if not url or proxy_bypass(netloc):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("the proxy in the environment is not one: only http:// proxies are known")
    headers = {}
    if parts.username is not None:
        from base64 import b64encode

        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    return Proxy(parts.hostname, parts.port or 80, headers)
