"""How a directory is mounted, read from the kernel's own list."""

import os
from pathlib import Path

import pytest

from mover.target.mount_options import Mount, mount_of, parse_mountinfo, risks

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
    ],
)
def test_options_that_a_backup_must_not_rely_on(kind, options, named):
    found = risks(Mount("/m", kind, "s", options))
    assert [option for option, _ in found] == named
    assert all(why for _, why in found)


def test_this_machines_own_list():
    with Path("/proc/self/mountinfo").open(encoding="utf-8") as lines:
        mount = mount_of(os.getcwd(), parse_mountinfo(lines))
    assert mount is not None and mount.kind
