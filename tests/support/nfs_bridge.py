"""A path on a real NFS 4.1 server where the kernel has no NFS client: FUSE in front, ``nfs_rs`` behind.

``python nfs_bridge.py MOUNT PORT EXPORT OPTIONS`` serves it until it is unmounted; OPTIONS are those of FUSE, as JSON.
With ``attr_timeout`` and ``entry_timeout`` the kernel believes what it knows for that long, as with actimeo of nfs(5).

What a kernel client does and this does too: a name is created exclusively (LINK, of NFS the one operation that both has
a name as its result and fails when it is taken), a file that is deleted while it is open goes on as ``.nfs<24 hex>``,
nothing is renamed with flags or set aside, a write is acknowledged once the server has committed it.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import itertools
import json
import os
import re
import signal
import stat
import sys
import threading

ROOT = "/top"  # below the export: nfs_rs can not look at the root of one
_STEPS = 4  # directories from one client to the next
_PLAIN = re.compile(r"[\w.-]+\Z", re.ASCII).match
_HIDDEN = re.compile(r"/\.fuse_hidden([0-9a-f]{16})$")
_KINDS = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO}
# What has no class of its own at the client, by what it says.
_WORDS = {
    "stale": errno.ESTALE,
    "invalid argument": errno.EINVAL,
    "not empty": errno.ENOTEMPTY,
    "no space": errno.ENOSPC,
    "quota": errno.EDQUOT,
    "read-only": errno.EROFS,
    "name too long": errno.ENAMETOOLONG,
}


def as_errno(error: Exception) -> int:
    """The errno a kernel client would give for an error of nfs_rs."""
    if isinstance(getattr(error, "errno", None), int):
        return error.errno
    said = f"{error} {getattr(error, 'code_name', '')}".lower()
    return next((code for words, code in _WORDS.items() if words in said), errno.EIO)


def serve(mount: str, port: str, export: str, options: str) -> None:
    """Run the bridge until it is unmounted or killed."""
    import mfusepy
    import nfs_rs

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: it does not outlive the tests
    clients: dict[str, nfs_rs.Client] = {}  # by the directory that they begin at
    lock = threading.Lock()
    handles = {}
    numbers = itertools.count(1)

    def begin_at(directory: str) -> nfs_rs.Client:
        with lock:
            if directory not in clients:
                where = f"{export}/{directory}".rstrip("/")
                url = f"nfs://127.0.0.1:{port}{where}?version=4.1&uid={os.geteuid()}&gid={os.getegid()}"
                clients[directory] = nfs_rs.Client.connect(url, operation_timeout=30)
            return clients[directory]

    def at(*paths: str) -> tuple:
        """A client, and the paths as it has them: it looks up each directory, and one request holds 16 steps."""
        # libfuse's name of a file that was deleted while it was open is NFS's there.
        split = [(ROOT + _HIDDEN.sub(r"/.nfs00000000\1", path)).strip("/").split("/") for path in paths]
        levels = zip(*(parts[:-1] for parts in split), strict=False)
        # Of plain names: what an URL makes of others is nobody's business here.
        common = [
            names[0] for names in itertools.takewhile(lambda names: _PLAIN(names[0]) and len({*names}) == 1, levels)
        ]
        cut = len(common) // _STEPS * _STEPS
        return begin_at("/".join(common[:cut])), *("/" + "/".join(parts[cut:]) for parts in split)

    def on(path: str, operation: str, *arguments, **options):
        client, name = at(path)
        return getattr(client, operation)(name, *arguments, **options)

    def both(first: str, second: str, operation: str):
        client, one, other = at(first, second)
        return getattr(client, operation)(one, other)

    begin_at("").mkdir(ROOT, 0o755, exist_ok=True)

    def keep(file) -> int:
        number = next(numbers)
        handles[number] = file
        return number

    def attributes(info) -> dict[str, int]:
        found = {"ino": info.fileid, "nlink": info.nlink, "size": info.size, "uid": info.uid, "gid": info.gid}
        found |= {"mode": _KINDS.get(info.type.value, 0) | info.mode, "blocks": (info.used + 511) // 512}
        found |= {"atime": info.atime, "mtime": info.mtime, "ctime": info.ctime}
        return {f"st_{name}": value for name, value in found.items()}

    def translated(operation):
        @functools.wraps(operation)
        def run(self, *arguments, **options):
            for attempt in range(2):
                try:
                    return operation(self, *arguments, **options)
                except nfs_rs.NfsError as error:
                    code = as_errno(error)
                    if code == errno.ESTALE and not attempt:
                        clients.clear()  # a directory that one begins at was made anew
                        continue
                    if code == errno.EIO:
                        print(operation.__name__, *arguments, repr(error), flush=True)
                    raise OSError(code, os.strerror(code)) from error
            raise AssertionError("unreachable")

        return run

    lost = (
        nfs_rs.NfsStateLostError,
        nfs_rs.NfsLostOpenStateError,
        nfs_rs.NfsUncertainOutcomeError,
        nfs_rs.NfsClosedResourceError,  # another thread of the same file was here first
    )

    class Opened:
        """An open file.

        One client that opens a file twice has one state of it at the server (RFC 8881, 9.1.4), which nfs_rs does not
        share between its handles: a second open makes the state of the first an old one. And of a write whose answer
        was lost it does not know the outcome. A kernel client sends both again; here the file is opened again, if its
        name still leads to it, and the same bytes are read from or written to the same place.
        """

        def __init__(self, client, name, mode):
            self._client, self._name, self._mode = client, name, mode
            self._turn = threading.Lock()
            self._file = client.open(name, mode)
            self._id = client.stat(name).fileid

        def read_at(self, offset, size):
            return self._again(lambda file: file.read_at(offset, size))

        def write_at(self, data, offset):
            return self._again(lambda file: file.write_at(data, offset))

        def flush(self):
            return self._again(lambda file: file.flush())

        def close(self):
            try:
                self._file.close()
            except nfs_rs.NfsFileCloseError as error:
                # Every write was committed when it was acknowledged: nothing is lost with the state.
                print("close", self._name, repr(error), flush=True)

        def _again(self, operation):
            for _ in range(20):
                file = self._file
                try:
                    return operation(file)
                except lost as error:
                    print("again", self._name, repr(error), flush=True)
                    with self._turn:
                        if self._file is file:
                            self._open_again()
            return operation(self._file)

        def _open_again(self):
            self.close()
            self._file = self._client.open(self._name, self._mode)
            if self._client.stat(self._name).fileid != self._id:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    class Strict(mfusepy.FUSE):
        def rename_fuse_3(self, old, new, flags):
            if flags:
                raise OSError(errno.EINVAL, "NFS has no flags")
            return self.rename_fuse_2(old, new)

    class Bridge(mfusepy.Operations):
        use_ns = True

        def getattr(self, path, fh=None):
            return attributes(on(path, "stat"))

        def readdir(self, path, fh):
            found = [(entry.name, attributes(entry.info)) for entry in on(path, "scandir")]
            return [(name, {key: status[key] for key in ("st_ino", "st_mode")}, 0) for name, status in found]

        def create(self, path, mode, fi=None):
            ours = f"{os.path.dirname(path).rstrip('/')}/.nfs{os.urandom(12).hex()}"
            client, made, name = at(ours, path)
            with client.open(made, "wb"):
                pass
            try:
                client.chmod(made, mode & 0o7777)
                client.link(made, name)
            finally:
                client.unlink(made)
            return keep(Opened(client, name, "r+b"))

        def open(self, path, flags):
            client, name = at(path)
            return keep(Opened(client, name, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "r+b"))

        def read(self, path, size, offset, fh):
            pieces = []
            while size and (piece := handles[fh].read_at(offset, size)):
                pieces.append(piece)
                offset, size = offset + len(piece), size - len(piece)
            return b"".join(pieces)

        def write(self, path, data, offset, fh):
            return handles[fh].write_at(data, offset)

        def truncate(self, path, length, fh=None):
            on(path, "truncate", length)

        def fallocate(self, path, mode, offset, size, fh):
            raise OSError(errno.EOPNOTSUPP, "NFS 4.1 can not")

        def flush(self, path, fh):
            handles[fh].flush()
            return 0

        def fsync(self, path, datasync, fh):
            handles[fh].flush()
            return 0

        def fsyncdir(self, path, datasync, fh):
            return 0  # what changes a directory is durable when the server answers

        def release(self, path, fh):
            handles.pop(fh).close()
            return 0

        def link(self, target, source):
            both(source, target, "link")

        def rename(self, old, new):
            both(old, new, "rename")

        def unlink(self, path):
            on(path, "unlink")

        def symlink(self, target, source):
            client, name = at(target)
            client.symlink(source, name)

        def readlink(self, path):
            return on(path, "readlink")

        def mkdir(self, path, mode):
            on(path, "mkdir", mode)

        def rmdir(self, path):
            on(path, "rmdir")

        def chmod(self, path, mode):
            on(path, "chmod", mode)
            return 0

        def chown(self, path, uid, gid):
            on(path, "chown", uid, gid)
            return 0

        def utimens(self, path, times=None):
            on(path, "utime", ns=times)
            return 0

        def statfs(self, path):
            found = begin_at("").fs_stat()
            block = 4096
            sizes = {"f_blocks": found.total_bytes, "f_bfree": found.free_bytes, "f_bavail": found.available_bytes}
            return {name: size // block for name, size in sizes.items()} | {"f_bsize": block, "f_frsize": block}

    for name, operation in vars(Bridge).copy().items():
        if callable(operation):
            setattr(Bridge, name, translated(operation))
    Strict(Bridge(), mount, foreground=True, fsname="mover-nfs", **json.loads(options))


if __name__ == "__main__":
    serve(*sys.argv[1:])
