"""A key service that speaks Amazon's and Alibaba Cloud's Encrypt and Decrypt, on this machine, for the real clients."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class KmsServer:
    """``keys``: AES keys by id. Requests must be signed; a blob names its key and is bound to the context."""

    def __init__(self, *key_ids: str) -> None:
        self.keys = {key_id: os.urandom(32) for key_id in key_ids}
        self.calls: list[tuple[str, str]] = []
        self.failing: tuple[int, str] | None = None  # status and code that every request is answered with
        self.url = ""

    def kms_url(self, key_id: str, scheme: str = "aws-kms") -> str:
        """What ``--encrypt-kms`` takes."""
        return f"{scheme}://{key_id}?region=eu-central-1&endpoint={self.url}"

    def answer(self, operation: str, asked: dict[str, object]) -> tuple[int, dict[str, object]]:
        key_id = str(asked.get("KeyId", ""))
        self.calls.append((operation, key_id))
        if self.failing is not None:
            return self.failing[0], {"__type": self.failing[1]}
        context = json.dumps(asked.get("EncryptionContext", {}), sort_keys=True).encode()
        if key_id not in self.keys:
            return 400, {"__type": "NotFoundException", "message": "no such key"}
        if operation == "Encrypt":
            nonce = os.urandom(12)
            sealed = AESGCM(self.keys[key_id]).encrypt(nonce, base64.b64decode(str(asked["Plaintext"])), context)
            blob = len(key_id).to_bytes(1, "big") + key_id.encode() + nonce + sealed
            return 200, {"CiphertextBlob": base64.b64encode(blob).decode(), "KeyId": key_id}
        blob = base64.b64decode(str(asked["CiphertextBlob"]))
        named, rest = blob[1 : 1 + blob[0]].decode(errors="replace"), blob[1 + blob[0] :]
        if named != key_id:
            return 400, {"__type": "IncorrectKeyException"}
        try:
            plain = AESGCM(self.keys[key_id]).decrypt(rest[:12], rest[12:], context)
        except InvalidTag:
            return 400, {"__type": "InvalidCiphertextException"}
        return 200, {"Plaintext": base64.b64encode(plain).decode(), "KeyId": key_id}

    def answer_form(self, form: dict[str, str]) -> tuple[int, dict[str, object]]:
        """A request in the RPC style: its signature is computed here once more, by openssl."""
        given = form.pop("Signature")
        pairs = "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in sorted(form.items()))
        text = f"POST&%2F&{quote(pairs, safe='~')}"
        command = ["openssl", "dgst", "-sha1", "-hmac", "secret-of-the-tests&", "-binary"]
        made = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
        if base64.b64encode(made).decode() != given or form["SignatureVersion"] != "1.0":
            return 400, {"Code": "SignatureDoesNotMatch"}
        if form["Action"] == "Decrypt":
            # The blob itself says which key it needs.
            blob = base64.b64decode(form["CiphertextBlob"])
            form["KeyId"] = blob[1 : 1 + blob[0]].decode(errors="replace")
        status, found = self.answer(form["Action"], dict(form))
        return status, found if status == 200 else {"Code": found["__type"]}


@contextmanager
def kms_server(*key_ids: str) -> Iterator[KmsServer]:
    """Run one for as long as the block."""
    kms = KmsServer(*key_ids)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            service, _, operation = self.headers.get("X-Amz-Target", "").partition(".")
            signed = self.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 Credential=")
            status, answer = 400, {"__type": "AccessDeniedException"}
            if not service:
                status, answer = kms.answer_form(dict(parse_qsl(body.decode())))
            elif service == "TrentService" and signed:
                status, answer = kms.answer(operation, json.loads(body))
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kms.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield kms
        finally:
            server.shutdown()
            thread.join()
