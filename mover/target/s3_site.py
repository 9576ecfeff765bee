"""Where the bucket answers, as botocore's configuration chain has it, without its service model."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from botocore.configprovider import ConfiguredEndpointProvider
from botocore.session import Session

from mover.target.s3_sender import CONNECT_SECONDS
from mover.target.tls import make_context
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


class BadProxy(Exception):
    """The environment names a proxy that can not be used."""


class ProxyFailed(OSError):
    """The proxy did not answer, or answered with ``status`` instead of a tunnel."""

    def __init__(self, status: int | None) -> None:
        super().__init__("the proxy failed")
        self.status = status


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
            try:
                connection.connect()
            except OSError as error:
                if self.proxy is None:
                    raise
                raise ProxyFailed(_refusal(error)) from error
            if self.context is not None:
                connection.sock = self.context.wrap_socket(connection.sock, server_hostname=self.host)
            # From here on the event loop keeps the time: a socket without a timeout sends a part in one system call.
            connection.sock.settimeout(None)
        except BaseException:
            connection.close()
            raise
        return connection


class Surroundings:
    """What the machine says: region, endpoint, certificates, from environment and files. Blocks."""

    def __init__(self, destination: ObjectDestination) -> None:
        self._destination = destination
        self._session = Session(profile=destination.aws_profile)

    def site(self, region: str | None = None) -> Site:
        """The address. Raises ValueError, BadBundle, BadProxy and botocore's errors."""
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
        bundle = self._destination.ca or self._session.get_config_variable("ca_bundle")
        return make_context(str(bundle) if bundle else None, self._destination.tls)


def _refusal(error: OSError) -> int | None:
    """The status that the proxy answered CONNECT with: http.client has it in its text only."""
    found = re.match(r"Tunnel connection failed: ([0-9]{3})", str(error))
    return int(found[1]) if found else None


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
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
    except ValueError:
        raise BadProxy from None  # its text would repeat the address, with the password
    if parts.scheme != "http" or not parts.hostname:
        raise BadProxy
    headers = {}
    if parts.username is not None:
        from base64 import b64encode

        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    return Proxy(parts.hostname, port, headers)
