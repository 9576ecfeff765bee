"""A proxy in front of a real S3 server that misbehaves on demand.

``proxy.fault(kind, method="PUT", where="partNumber=2", times=1)`` makes the next requests that match go wrong:

* ``slow-down``: 503 SlowDown, nothing is passed on;
* ``lost``: the request is carried out, the connection is closed without an answer;
* ``reset``: the connection is closed, nothing is passed on;
* ``hang``: nothing is passed on and nothing is ever answered;
* ``error-200``: 200 with an error in the body, nothing is passed on;
* ``empty-200``: 200 with nothing at all, nothing is passed on;
* ``nods``: 200 with the MD5 of what came, whatever was said of it; nothing is passed on;
* ``damage``: the body is passed on with a flipped bit;
* ``other-etag``, ``other-checksum``: passed on, and the answer's ETag or CRC-32C is another one;
* ``drop``: the connection is closed while the body is still on its way, nothing is passed on;
* ``retry-after``: 503 that asks for seven seconds, nothing is passed on;
* ``no-such-part``: 400 InvalidPartNumber, nothing is passed on;
* ``cut``: passed on, and the answer ends half way;
* ``too-many``: 429 with nothing else, nothing is passed on;
* ``unavailable``: 503 with a page of HTML, nothing is passed on;
* ``retry-soon``: 503 that asks for a second, nothing is passed on;
* ``delay``: passed on, and answered half a second later;
* ``corrupt``: passed on, and the content of the object comes with a flipped bit;
* ``shorter``: passed on, and what comes is the first half of the object, as if that were all.

``proxy.unplug()`` takes the proxy off the network: connections are refused, or with ``black_hole`` accepted and never
answered; ``proxy.plug()`` is the end of that.
"""

import asyncio
import hashlib
import io
from dataclasses import dataclass

from aiohttp import ClientSession, web
from multidict import CIMultiDict
from yarl import URL

_ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>try again</Message></Error>'
_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass
class Fault:
    kind: str
    method: str
    where: str
    times: int

    def takes(self, request):
        return self.times > 0 and request.method == self.method and self.where in request.raw_path


class FaultProxy:
    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.seen: list[str] = []  # "METHOD raw-path" of every request
        self.expected_continue = 0
        self.faults: list[Fault] = []
        self._released = asyncio.Event()
        self._hole = False

    def fault(self, kind, method="PUT", where="", times=1):
        self.faults.append(Fault(kind, method, where, times))

    def count(self, method, where=""):
        return sum(1 for line in self.seen if line.startswith(f"{method} ") and where in line)

    async def __aenter__(self):
        self._session = ClientSession(auto_decompress=False, skip_auto_headers={"User-Agent", "Content-Type"})
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{anything:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await self._site.start()
        self.port = self._runner.addresses[0][1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_):
        self._released.set()
        await self._runner.cleanup()
        await self._session.close()

    def _next_fault(self, request):
        return next((fault for fault in self.faults if fault.takes(request)), None)

    async def unplug(self, *, black_hole=False):
        """No request gets through any more; where connections are refused, those under way neither."""
        self._hole = black_hole
        if not black_hole:
            await self._site.stop()
        for transport in self._transports():
            if not black_hole:
                transport.abort()

    async def plug(self):
        """On the network again, at the same address."""
        self._hole = False
        self._released.set()
        self._released = asyncio.Event()
        if self._site not in self._runner.sites:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
            await self._site.start()

    def _transports(self):
        return [each.transport for each in self._runner.server.connections if each.transport is not None]

    async def _handle(self, request):
        self.seen.append(f"{request.method} {request.raw_path}")
        self.expected_continue += "Expect" in request.headers
        fault = self._next_fault(request)
        kind = ""
        if fault:
            fault.times -= 1
            kind = fault.kind
        if self._hole:
            await self._released.wait()
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if kind == "hang":
            await self._released.wait()
        if kind == "delay":
            await asyncio.sleep(0.5)
        if kind == "drop":
            await request.content.readany()
            request.transport.abort()
            return web.Response()
        body = await request.read()
        if kind in ("retry-after", "retry-soon"):
            return web.Response(status=503, headers={"Retry-After": "7" if kind == "retry-after" else "1"})
        if kind == "too-many":
            return web.Response(status=429)
        if kind == "unavailable":
            return web.Response(status=503, text="<html><body>no server is available</body></html>")
        if kind == "slow-down":
            return web.Response(status=503, text=_ERROR.format(code="SlowDown"), content_type="application/xml")
        if kind == "no-such-part":
            return web.Response(
                status=400, text=_ERROR.format(code="InvalidPartNumber"), content_type="application/xml"
            )
        if kind == "error-200":
            return web.Response(text=_ERROR.format(code="InternalError"), content_type="application/xml")
        if kind == "nods":
            return web.Response(headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        if kind == "empty-200":
            return web.Response()
        if kind in ("reset", "hang"):
            request.transport.abort()
            return web.Response()
        if kind == "damage" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        # The Host header is part of the signature and goes on as it came.
        headers = CIMultiDict((name, value) for name, value in request.headers.items() if name.lower() not in _HOP)
        url = URL(self.backend + request.raw_path, encoded=True)
        async with self._session.request(
            request.method, url, headers=headers, data=io.BytesIO(body) if body else None, allow_redirects=False
        ) as answer:
            content = await answer.read()
            out = CIMultiDict((name, value) for name, value in answer.headers.items() if name.lower() not in _HOP)
            if kind == "lost":
                request.transport.abort()
                return web.Response()
            if kind == "other-etag":
                out["ETag"] = '"00000000000000000000000000000000"'
            if kind == "other-checksum":
                out["x-amz-checksum-crc32c"] = "AAAAAA=="
            if kind == "cut":
                response = web.StreamResponse(status=answer.status, headers=out)
                await response.prepare(request)
                await response.write(content[: len(content) // 2])
                await asyncio.sleep(0)
                request.transport.close()
                return response
            # A listing has no checksum: without TLS nobody can tell a changed one.
            if answer.status < 300 and content and "list-type" not in request.query and "uploads" not in request.query:
                if kind == "corrupt":
                    half = len(content) // 2
                    content = content[:half] + bytes([content[half] ^ 0x10]) + content[half + 1 :]
                if kind == "shorter":
                    content = content[: len(content) // 2]
            if request.method == "HEAD":
                out.setdefault("Content-Length", "0")
                return web.Response(status=answer.status, headers=out)
            out.pop("Content-Length", None)
            return web.Response(status=answer.status, headers=out, body=content)
