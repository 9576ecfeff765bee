"""A path on a real NFS 4.1 server where the kernel has no NFS client: FUSE in front, ``nfs_rs`` behind.

``python nfs_bridge.py MOUNT PORT EXPORT OPTIONS`` serves it until it is unmounted; OPTIONS are those of FUSE, as JSON.
With ``attr_timeout`` and ``entry_timeout`` the kernel believes what it knows for that long, as with actimeo of nfs(5).

What a kernel client does and this does too: a name is created exclusively (LINK, of NFS the one operation that both has
a name as its result and fails when it is taken), a file that is deleted while it is open goes on as ``.nfs<24 hex>``,
nothing is renamed with flags or set aside, a write is acknowledged once the server has committed it.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import stat
import sys

ROOT = "/top"  # below the export: nfs_rs can not look at the root of one
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

    url = f"nfs://127.0.0.1:{port}{export}?version=4.1&uid={os.geteuid()}&gid={os.getegid()}"
    client = nfs_rs.Client.connect(url, operation_timeout=30)
    client.mkdir(ROOT, 0o755, exist_ok=True)
    handles = {}
    numbers = itertools.count(1)

    def at_server(path: str) -> str:
        """libfuse's name of a file that was deleted while it was open is NFS's there."""
        return ROOT + _HIDDEN.sub(r"/.nfs00000000\1", path)

    def keep(file) -> int:
        number = next(numbers)
        handles[number] = file
        return number

    def attributes(info) -> dict[str, int]:
        found = {"ino": info.fileid, "nlink": info.nlink, "size": info.size, "uid": info.uid, "gid": info.gid}
        found |= {"mode": _KINDS.get(info.type.value, 0) | info.mode, "blocks": (info.used + 511) // 512}
        found |= {"atime": info.atime, "mtime": info.mtime, "ctime": info.ctime}
        return {f"st_{name}": value for name, value in found.items()}

    class Strict(mfusepy.FUSE):
        def rename_fuse_3(self, old, new, flags):
            if flags:
                raise OSError(errno.EINVAL, "NFS has no flags")
            return self.rename_fuse_2(old, new)

    class Bridge(mfusepy.Operations):
        use_ns = True

        def __call__(self, operation, *arguments):
            try:
                return super().__call__(operation, *arguments)
            except nfs_rs.NfsError as error:
                code = as_errno(error)
                if code == errno.EIO:
                    print(operation, arguments[0], repr(error), flush=True)
                raise OSError(code, os.strerror(code)) from error

        def getattr(self, path, fh=None):
            return attributes(client.stat(at_server(path)))

        def readdir(self, path, fh):
            found = [(entry.name, attributes(entry.info)) for entry in client.scandir(at_server(path))]
            return [(name, {key: status[key] for key in ("st_ino", "st_mode")}, 0) for name, status in found]

        def create(self, path, mode, fi=None):
            ours = f"{ROOT}/.create.{os.urandom(8).hex()}"
            with client.open(ours, "wb"):
                pass
            try:
                client.chmod(ours, mode & 0o7777)
                client.link(ours, at_server(path))
            finally:
                client.unlink(ours)
            return keep(client.open(at_server(path), "r+b"))

        def open(self, path, flags):
            return keep(client.open(at_server(path), "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "r+b"))

        def read(self, path, size, offset, fh):
            pieces = []
            while size and (piece := handles[fh].read_at(offset, size)):
                pieces.append(piece)
                offset, size = offset + len(piece), size - len(piece)
            return b"".join(pieces)

        def write(self, path, data, offset, fh):
            return handles[fh].write_at(data, offset)

        def truncate(self, path, length, fh=None):
            client.truncate(at_server(path), length)

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
            client.link(at_server(source), at_server(target))

        def rename(self, old, new):
            client.rename(at_server(old), at_server(new))

        def unlink(self, path):
            client.unlink(at_server(path))

        def symlink(self, target, source):
            client.symlink(source, at_server(target))

        def readlink(self, path):
            return client.readlink(at_server(path))

        def mkdir(self, path, mode):
            client.mkdir(at_server(path), mode)

        def rmdir(self, path):
            client.rmdir(at_server(path))

        def chmod(self, path, mode):
            client.chmod(at_server(path), mode)
            return 0

        def chown(self, path, uid, gid):
            client.chown(at_server(path), uid, gid)
            return 0

        def utimens(self, path, times=None):
            client.utime(at_server(path), ns=times)
            return 0

        def statfs(self, path):
            found = client.fs_stat()
            block = 4096
            sizes = {"f_blocks": found.total_bytes, "f_bfree": found.free_bytes, "f_bavail": found.available_bytes}
            return {name: size // block for name, size in sizes.items()} | {"f_bsize": block, "f_frsize": block}

    Strict(Bridge(), mount, foreground=True, fsname="mover-nfs", **json.loads(options))


if __name__ == "__main__":
    serve(*sys.argv[1:])
