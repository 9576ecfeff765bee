"""A bucket in memory, with the semantics of tests/support/oss_rules.py: objects, versions, uploads, locks."""

import hashlib
import itertools
import secrets
import time
from base64 import b64encode
from dataclasses import dataclass, field, replace

from oss_verify import Refused

from mover.kernel import crc64_xz

_numbers = itertools.count(1)


@dataclass
class Stored:
    """A version of an object. ``kept`` is what it was stored with: lower-case headers, metadata included."""

    data: bytes
    etag: str  # without quotes
    kept: dict = field(default_factory=dict)
    kind: str = "Normal"
    parts: int = 0
    modified: float = field(default_factory=time.time)
    version: str = field(default_factory=lambda: f"v{next(_numbers)}")
    crc32c: str = ""

    @property
    def crc64(self):
        return crc64_xz(self.data)

    @property
    def locked_until(self):
        """ISO 8601, or "" where there is no lock."""
        return self.kept.get("x-amz-object-lock-retain-until-date", "")

    def locked(self):
        return self.locked_until > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@dataclass
class Upload:
    key: str
    kept: dict
    begun: float = field(default_factory=time.time)
    parts: dict = field(default_factory=dict)  # number -> (data, etag, crc32c)
    puts: int = 0  # parts stored, the repeated ones too
    upload_id: str = field(default_factory=lambda: secrets.token_hex(16).upper())


class Bucket:
    def __init__(self, name, rules):
        self.name, self.rules = name, rules
        self.objects = {}  # key -> Stored, the one that is seen
        self.hidden = []  # (key, Stored) of versions that are not
        self.uploads = {}  # id -> Upload
        self.completed = []  # ids, each time an upload was put together

    def find(self, key, version=None):
        found = self.objects.get(key)
        if version and (found is None or found.version != version):
            found = next((old for name, old in self.hidden if name == key and old.version == version), None)
        if found is None:
            raise Refused(404, "NoSuchKey", "the key does not exist", Key=key)
        return found

    def put(self, key, data, kept, headers, crc32c=""):
        self.condition(key, headers)
        stored = Stored(data, self._md5(data), kept, crc32c=crc32c)
        self._keep(key, stored)
        return stored

    def condition(self, key, headers):
        """Whether a name that must be new is."""
        if "if-none-match" in headers:
            if self.rules.if_none_match == "refused":
                message = "a header you provided implies functionality that is not implemented"
                raise Refused(501, "NotImplemented", message)
            if self.rules.if_none_match == "honoured" and key in self.objects:
                raise Refused(412, "PreconditionFailed")
        # Ignored in a bucket with versions.
        taken = self.rules.forbid_overwrite and not self.rules.versions and key in self.objects
        if headers.get("x-oss-forbid-overwrite") == "true" and taken:
            raise Refused(409, "FileAlreadyExists", "the object already exists and can not be overwritten")

    def append(self, key, data, position):
        """OSS's AppendObject: only at the end, and only of an object that was made by appending."""
        old = self.objects.get(key)
        if old is not None and old.kind != "Appendable":
            raise Refused(409, "ObjectNotAppendable", "the object is not appendable")
        length = len(old.data) if old else 0
        if position != length:
            more = {"x-oss-next-append-position": str(length)}
            raise Refused(409, "PositionNotEqualToLength", "position is not equal to the object's length", headers=more)
        whole = (old.data if old else b"") + data
        stored = Stored(whole, f"{secrets.token_hex(16).upper()}", old.kept if old else {}, "Appendable")
        self._keep(key, stored)
        return stored

    def begin(self, key, kept, headers):
        if headers.get("x-oss-forbid-overwrite"):
            self.condition(key, headers)
        upload = Upload(key, kept)
        self.uploads[upload.upload_id] = upload
        return upload

    def upload(self, key, upload_id):
        found = self.uploads.get(upload_id)
        if found is None or found.key != key:
            raise Refused(404, "NoSuchUpload", "the upload does not exist: it may have been aborted or completed")
        return found

    def part(self, key, upload_id, number, data, crc32c=""):
        upload = self.upload(key, upload_id)
        if not 1 <= number <= self.rules.parts_most:
            raise Refused(400, "InvalidArgument", f"part number must be 1 to {self.rules.parts_most}")
        etag = self._md5(data)
        upload.parts[number] = (data, etag, crc32c)
        upload.puts += 1
        return etag

    def complete(self, key, upload_id, listed, headers):
        """``listed``: (number, etag without quotes, checksum or "") as the client has them."""
        upload = self.upload(key, upload_id)
        self.condition(key, headers)
        if not listed or [number for number, _, _ in listed] != sorted({number for number, _, _ in listed}):
            raise Refused(400, "InvalidPartOrder" if listed else "MalformedXML")
        for place, (number, etag, checksum) in enumerate(listed, 1):
            data, ours, crc = upload.parts.get(number, (b"", None, ""))
            if ours is None or etag.upper() != ours.upper() or (checksum and checksum != crc):
                raise Refused(400, "InvalidPart", f"part {number} is not the one that was stored")
            if len(data) < self.rules.part_least and place < len(listed):
                raise Refused(400, "EntityTooSmall", f"part {number} is smaller than {self.rules.part_least}")
        data = b"".join(upload.parts[number][0] for number, _, _ in listed)
        if self.rules.multipart_etag:
            digests = b"".join(bytes.fromhex(upload.parts[number][1]) for number, _, _ in listed)
            etag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(listed)}"
        else:
            etag = f"{secrets.token_hex(16).upper()}-{len(listed)}"
        crc = ""
        if all(upload.parts[number][2] for number, _, _ in listed):
            from oss_words import crc32c_of, decoded

            joined = b"".join(decoded(upload.parts[number][2]) for number, _, _ in listed)
            crc = f"{b64encode(crc32c_of(joined)).decode()}-{len(listed)}"
        stored = Stored(data, etag, upload.kept, "Multipart", len(listed), crc32c=crc)
        self._keep(key, stored)
        del self.uploads[upload_id]
        self.completed.append(upload_id)
        return stored

    def delete(self, key, version=None):
        """With a version that version goes for good; without one the name goes, and what it named may stay hidden."""
        if version:
            try:
                found = self.find(key, version)
            except Refused:
                return
            self._unlocked(key, found)
            if self.objects.get(key) is found:
                del self.objects[key]
            else:
                self.hidden.remove((key, found))
            return
        found = self.objects.get(key)
        if found is None:
            return
        if self.rules.versions:
            self.hidden.append((key, found))
        else:
            self._unlocked(key, found)
        del self.objects[key]

    def page(self, prefix, after, most):
        """Keys behind ``after`` in the order of UTF-8, and whether there are more."""
        keys = sorted((key for key in self.objects if key.startswith(prefix)), key=str.encode)
        keys = [key for key in keys if key.encode() > after.encode()]
        most = min(most, self.rules.list_most)
        return keys[:most], len(keys) > most

    def damage(self, key, data):
        """What is stored becomes something else, and every checksum of it with it."""
        self.objects[key] = replace(self.objects[key], data=data, etag=self._md5(data))

    def _unlocked(self, key, stored):
        if stored.locked():
            if self.rules.dialect == "oss":
                raise Refused(409, "FileImmutable", "the object is protected by a retention policy", Key=key)
            raise Refused(403, "AccessDenied", "Access Denied because object protected by object lock.", Key=key)

    def _keep(self, key, stored):
        old = self.objects.get(key)
        if old is not None:
            if self.rules.versions:
                self.hidden.append((key, old))
            else:
                self._unlocked(key, old)
        self.objects[key] = stored

    def _md5(self, data):
        if not self.rules.etag:
            return secrets.token_hex(12)
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return digest.upper() if self.rules.dialect == "oss" else digest
