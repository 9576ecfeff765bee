"""TLS in front of a plain server, with a certificate that was made for it.

``async with TlsRelay(directory, backend) as relay:`` gives ``relay.endpoint`` and ``relay.certificate``, the file that
makes a client trust it. ``names`` and ``days`` are the certificate's. ``with old_server(relay, version) as endpoint:``
has the same certificate, speaks one version of TLS only, and says so to who wants another, as asyncio's servers do not.
``async with ConnectProxy() as proxy:`` is an HTTP proxy that knows CONNECT and wants ``user:p@ss``; ``proxy.asked`` is
what it was asked for.
"""

import asyncio
import socket
import ssl
import subprocess
import threading
import warnings
from contextlib import contextmanager
from urllib.parse import urlsplit


class TlsRelay:
    def __init__(self, directory, backend, *, names="DNS:localhost,IP:127.0.0.1", days=2):
        directory.mkdir(exist_ok=True)
        self.certificate = directory / "certificate.pem"
        self.key = key = directory / "key.pem"
        asked = directory / "request.pem"
        subject = ["-subj", "/CN=localhost", "-addext", f"subjectAltName={names}"]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        made = ["openssl", "req", "-new", "-nodes", *curve, *subject, "-keyout", str(key), "-out", str(asked)]
        subprocess.run(made, check=True, capture_output=True)
        # This command, unlike "req", makes certificates that have ended already.
        signed = ["openssl", "x509", "-req", "-in", str(asked), "-signkey", str(key), "-copy_extensions", "copyall"]
        subprocess.run([*signed, "-days", str(days), "-out", str(self.certificate)], check=True, capture_output=True)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate, key)
        self._backend = urlsplit(backend)
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        self.endpoint = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        behind, to = await asyncio.open_connection(self._backend.hostname, self._backend.port)
        try:
            await asyncio.gather(_pass_on(reader, to), _pass_on(behind, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (to, writer):
                each.transport.abort()


@contextmanager
def old_server(relay, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(relay.certificate, relay.key)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old ones are what is wanted
        context.minimum_version = context.maximum_version = version

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                with connection, context.wrap_socket(connection, server_side=True):
                    pass
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


class ConnectProxy:
    def __init__(self):
        self.asked = []
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, place, _ = head.split(" ", 2)
        self.asked.append(f"{method} {place}")
        to = writer
        try:
            if "dXNlcjpwQHNz" not in head:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
            host, _, port = place.rpartition(":")
            behind, to = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            await asyncio.gather(_pass_on(reader, to), _pass_on(behind, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (to, writer):
                each.close()


async def _pass_on(reader, writer):
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()
    writer.transport.abort()
