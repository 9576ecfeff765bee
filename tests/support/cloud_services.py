"""What a cloud has around its object store, on loopback: who gives out keys, and a store that knows which are good.

``async with CloudServices(weed) as cloud:`` gives

* ``cloud.endpoint``: a verifying relay before the S3 server ``weed``. It checks every Signature V4 against the keys
  that were issued, refuses ended tokens and foreign clocks as Amazon does, and signs anew with the server's own keys;
* ``cloud.services``: STS (AssumeRole, AssumeRoleWithWebIdentity), EC2's and Alibaba's and Tencent's metadata services
  and a container endpoint, all of which give out keys from :meth:`issue`.

``cloud.end_all()`` ends every key given out so far; ``cloud.ahead`` is what the store's clock is ahead, in seconds;
``cloud.issued`` has the keys, ``cloud.refused`` the codes of refusals, ``cloud.asked`` what the services were asked.
"""

import hmac
import io
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from aiohttp import ClientSession, web
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from multidict import CIMultiDict
from yarl import URL

CONTAINER_TOKEN = "container-auth-" + secrets.token_hex(8)
ROLE = "backup role"
_TOLERATED = 900
_HOP = {"connection", "transfer-encoding", "keep-alive"}
_ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>{}</Message></Error>'
_STS = """<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>
<AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>
<Expiration>{end}</Expiration></Credentials><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn>
<AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser></{action}Result></{action}Response>"""


@dataclass
class Key:
    id: str
    secret: str
    token: str | None
    end: datetime
    good: bool = True

    @property
    def texts(self):
        """What must appear nowhere."""
        return [self.secret, *([self.token] if self.token else [])]


class CloudServices:
    def __init__(self, weed):
        self._weed = weed
        self.issued = []
        self.refused = []
        self.asked = []
        self.ahead = 0.0
        self.lifetime = timedelta(hours=6)
        self.silent = False  # the services, not the store
        self.spoilt = False  # what is given out is refused
        self.identities = set()  # web identity tokens that STS takes
        self.before = None  # answers in place of the store

    def issue(self, *, temporary=True):
        """A new key that the store takes."""
        key = Key(
            "AKIA" + secrets.token_hex(8).upper(),
            "sec/" + secrets.token_hex(16),
            "tok+" + secrets.token_hex(40) if temporary else None,
            datetime.now(UTC).replace(microsecond=0) + self.lifetime,
            good=not self.spoilt,
        )
        self.issued.append(key)
        return key

    def end_all(self):
        for key in self.issued:
            key.good = False

    async def __aenter__(self):
        self._session = ClientSession(auto_decompress=False, skip_auto_headers={"User-Agent", "Content-Type"})
        self._runners = []
        self.endpoint = await self._serve(self._store)
        self.services = await self._serve(self._service)
        return self

    async def __aexit__(self, *_):
        for runner in self._runners:
            await runner.cleanup()
        await self._session.close()

    async def _serve(self, handle):
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{anything:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    # --- the store --------------------------------------------------------------------------------------------------

    async def _store(self, request):
        body = await request.read()
        if self.before is not None:
            return self.before(request)
        code = self._judge(request)
        date = {"Date": formatdate(time.time() + self.ahead, usegmt=True)}
        if code is not None:
            self.refused.append(code)
            status = 400 if code == "ExpiredToken" else 403
            if request.method == "HEAD":
                return web.Response(status=status, headers=date)
            # Real stores repeat tokens and what was to be signed.
            key = next((key for key in self.issued if key.id in request.headers.get("Authorization", "")), None)
            words = " ".join(["x" * 250, *(key.texts if key else ()), str(request.headers)])
            text = _ERROR.format(code, escape(words))
            return web.Response(status=status, text=text, content_type="application/xml", headers=date)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in {*_HOP, "authorization", "x-amz-security-token", "x-amz-date", "host"}
        }
        url = f"{self._weed.endpoint}{request.raw_path}"
        signed = AWSRequest(request.method, url, headers={**headers, "host": urlsplit(url).netloc})
        keys = Credentials(self._weed.access_id, self._weed.access_key)
        auth = S3SigV4Auth(keys, "s3", "us-east-1")
        auth.payload = lambda _request: "UNSIGNED-PAYLOAD"
        auth.add_auth(signed)
        data = io.BytesIO(body) if body else None
        async with self._session.request(
            request.method, URL(url, encoded=True), headers=dict(signed.headers.items()), data=data
        ) as answer:
            content = await answer.read()
            out = CIMultiDict((name, value) for name, value in answer.headers.items() if name.lower() not in _HOP)
            out.update(date)
            if request.method == "HEAD":
                out.setdefault("Content-Length", "0")
                return web.Response(status=answer.status, headers=out)
            out.pop("Content-Length", None)
            return web.Response(status=answer.status, headers=out, body=content)

    def _judge(self, request):
        """The code that a request is refused with, or None: its signature is recomputed."""
        fields = dict(
            piece.strip().split("=", 1)
            for piece in request.headers.get("Authorization", "").partition(" ")[2].split(",")
            if "=" in piece
        )
        if "Credential" not in fields:
            return "AccessDenied"
        access_id, _, region, *_ = fields["Credential"].split("/")
        key = next((key for key in self.issued if key.id == access_id), None)
        if key is None:
            return "InvalidAccessKeyId"
        if request.headers.get("x-amz-security-token") != key.token:
            return "InvalidToken"
        stamp = request.headers["x-amz-date"]
        moment = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if abs(moment - time.time() - self.ahead) > _TOLERATED:
            return "RequestTimeTooSkewed"
        names = fields["SignedHeaders"].split(";")
        asked = AWSRequest(
            request.method,
            f"http://{request.host}{request.raw_path}",
            headers={name: request.headers[name] for name in names},
        )
        asked.context["timestamp"] = stamp
        auth = S3SigV4Auth(Credentials(key.id, key.secret, key.token), "s3", region)
        auth.payload = lambda _request: request.headers["x-amz-content-sha256"]
        expected = auth.signature(auth.string_to_sign(asked, auth.canonical_request(asked)), asked)
        if not hmac.compare_digest(expected, fields["Signature"]):
            return "SignatureDoesNotMatch"
        return None if key.good and key.end > datetime.now(UTC) else "ExpiredToken"

    # --- who gives out keys -----------------------------------------------------------------------------------------

    async def _service(self, request):
        self.asked.append(f"{request.method} {request.path}")
        if self.silent:
            return web.Response(status=503)
        if request.path == "/container":
            if request.headers.get("Authorization") != CONTAINER_TOKEN:
                return web.Response(status=403)
            key = self.issue()
            names = ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")
            return web.json_response(dict(zip(names, _values(key), strict=True)))
        if request.path.startswith("/latest/"):
            return self._metadata(request)
        form = await request.post()
        by_token = request.query.get("Action") == "AssumeRoleWithOIDC"
        if by_token and form["OIDCToken"] not in self.identities:
            return web.json_response({"Code": "AuthenticationFail", "Message": form["OIDCToken"]}, status=400)
        if by_token or request.path == "/uri":
            names = ("AccessKeyId", "AccessKeySecret", "SecurityToken", "Expiration")
            answer = dict(zip(names, _values(self.issue()), strict=True))
            return web.json_response({"Credentials": answer} if by_token else {"Code": "Success", **answer})
        action = form["Action"]
        if action == "AssumeRoleWithWebIdentity" and form["WebIdentityToken"] not in self.identities:
            error = _ERROR[21:].format("InvalidIdentityToken", f"what is {form['WebIdentityToken']}?")
            return web.Response(status=400, text=f"<ErrorResponse>{error}</ErrorResponse>")
        identifier, secret, token, end = _values(self.issue())
        answer = _STS.format(action=action, id=identifier, secret=secret, token=token, end=end)
        return web.Response(text=answer, content_type="text/xml")

    def _metadata(self, request):
        path, session = request.path, "metadata-session"
        if path == "/latest/api/token":
            ttl = ("x-aws-ec2-metadata-token-ttl-seconds", "x-aliyun-ecs-metadata-token-ttl-seconds")
            fits = request.method == "PUT" and any(name in request.headers for name in ttl)
            return web.Response(text=session) if fits else web.Response(status=400)
        kind = path.split("/")[3]
        header = {"iam": "x-aws-ec2-metadata-token", "ram": "x-aliyun-ecs-metadata-token"}.get(kind)
        if header is not None and request.headers.get(header) != session:
            return web.Response(status=401)
        if path.endswith("/security-credentials/"):
            return web.Response(text=ROLE)
        if not path.endswith(f"/security-credentials/{ROLE}"):
            return web.Response(status=404)
        names = {
            "iam": ("AccessKeyId", "SecretAccessKey", "Token", "Expiration"),
            "ram": ("AccessKeyId", "AccessKeySecret", "SecurityToken", "Expiration"),
            "cam": ("TmpSecretId", "TmpSecretKey", "Token", "Expiration"),
        }[kind]
        key = self.issue()
        answer = {"Code": "Success", **dict(zip(names, _values(key), strict=True))}
        return web.json_response({**answer, "ExpiredTime": int(key.end.timestamp())})


def _values(key):
    return key.id, key.secret, key.token, key.end.isoformat().replace("+00:00", "Z")
