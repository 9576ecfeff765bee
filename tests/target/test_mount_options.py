"""How a directory is mounted, read from the kernel's own list."""

import os
from pathlib import Path

import pytest

from mover.target.mount_options import Mount, mount_of, on_the_root, parse_mountinfo, risks

HARMLESS = (
    *("rw", "relatime", "vers=4.1", "rsize=1048576", "wsize=1048576", "namlen=255", "hard", "proto=tcp", "timeo=600"),
    *("retrans=2", "sec=sys", "clientaddr=10.0.0.2", "local_lock=none", "addr=10.0.0.1"),
)
LINES = [
    "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n",
    "40 22 0:44 / /mnt/back\\040up rw,nosuid master:2 - nfs4 server:/export rw,vers=4.1,soft,local_lock=none\n",
    "41 40 0:45 / /mnt/back\\040up rw - tmpfs none rw\n",
    "42 22 0:46 / /mnt/b rw - nfs server:/b rw,hard,nolock,actimeo=0\n",
    "not a line of it\n",
]


def test_the_mount_of_a_path_is_the_last_of_the_longest():
    mounts = list(parse_mountinfo(LINES))
    assert [mount.kind for mount in mounts] == ["ext4", "nfs4", "tmpfs", "nfs"]
    assert mount_of("/mnt/back up/x", mounts) == mounts[2], "what was mounted over the other covers it"
    assert mount_of("/mnt/back", mounts) == mounts[0], "a name is not a prefix of a longer one"
    assert mount_of("/mnt/b/c", mounts) == mounts[3]
    assert mount_of("/", mounts[1:]) is None
    assert (mounts[1].point, mounts[1].source, mounts[1].remote) == ("/mnt/back up", "server:/export", True)
    assert not mounts[0].remote


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        ("nfs4", ("rw", "soft"), ["soft"]),
        ("nfs", ("rw", "hard", "async", "nolock"), ["async", "nolock"]),
        ("nfs4", ("rw", "hard", "vers=4.1"), []),
        ("ext4", ("rw", "soft"), []),
        ("tmpfs", ("rw",), ["tmpfs"]),
        # As kernels show them, with all that is harmless around.
        (
            "nfs4",
            HARMLESS,
            [],
        ),
        (
            "nfs",
            ["rw", "vers=3", "hard", "proto=udp", "timeo=11", "local_lock=all"],
            ["vers=3", "proto=udp", "local_lock=all", "timeo=11"],
        ),
        ("nfs4", ["ro", "vers=4.0", "softreval", "nocto", "fsc"], ["ro", "vers=4.0", "softreval", "nocto", "fsc"]),
        ("nfs4", ["rw", "vers=4.2", "softerr", "timeo=600", "retrans=5"], ["softerr", "timeo=600"]),
        ("nfs4", ["rw", "acregmin=0", "acregmax=0", "acdirmin=0", "acdirmax=0"], ["actimeo=0"]),
        ("nfs4", ["rw", "acregmin=600", "acregmax=600", "acdirmin=30", "acdirmax=60"], ["acregmax=600"]),
        ("nfs4", ["rw", "sync", "noac"], ["noac"]),
        ("cifs", ["rw", "vers=3.1.1", "cache=strict", "hard", "serverino"], []),
        (
            "smb3",
            ["rw", "cache=loose", "soft", "nobrl", "noserverino"],
            ["cache=loose", "soft", "nobrl", "noserverino"],
        ),
        ("fuse.s3fs", ("rw",), ["fuse.s3fs"]),
        ("fuse.juicefs", ("rw", "soft"), []),
        ("overlay", ("rw",), ["overlay"]),
        ("9p", ("rw", "cache=mmap"), ["cache=mmap"]),
        ("xfs", ("rw", "nobarrier"), ["nobarrier"]),
        ("ext4", ("ro",), ["ro"]),
    ],
)
def test_options_that_a_backup_must_not_rely_on(kind, options, named):
    found = risks(Mount("/m", kind, "s", tuple(options)))
    assert [option for option, _ in found] == named
    assert all(why for _, why in found)


@pytest.mark.parametrize(
    ("point", "kind", "said"),
    [
        ("/", "ext4", True),
        ("/", "overlay", False),
        ("/", "nfs4", False),
        ("/mnt", "ext4", False),
        ("/mnt", "nfs", False),
    ],
)
def test_a_destination_where_nothing_is_mounted(point, kind, said):
    hint = on_the_root(Mount(point, kind, "s", ("rw",)))
    assert (hint is not None) == said and "nothing is mounted" in (hint or "nothing is mounted")


def test_this_machines_own_list():
    with Path("/proc/self/mountinfo").open(encoding="utf-8") as lines:
        mount = mount_of(os.getcwd(), parse_mountinfo(lines))
    assert mount is not None and mount.kind
