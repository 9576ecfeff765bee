"""The trees that OceanBase might have written are whole, repeatable, and can be damaged in some hundred ways."""

import hashlib
import struct

import pytest
from independent_reader import murmur
from tree31 import LAYOUTS, TreeSpec, build, damage, kinds
from tree31.damage import blocks, frames

SPECS = {layout: TreeSpec(seed=11, layout=layout) for layout in LAYOUTS}
TREES = {layout: build(spec) for layout, spec in SPECS.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_seed_gives_the_same_tree(layout):
    again = build(SPECS[layout])
    assert again.files == TREES[layout].files and again.truth == TREES[layout].truth
    assert build(TreeSpec(seed=12, layout=layout)).files != again.files


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_are_where_the_truth_says(layout):
    tree = TREES[layout]
    good = [one for one in tree.truth["sets"] if one["status"] == "success"]
    assert {one["type"] for one in good} == {"full", "inc"}
    reused = 0
    for one in good:
        assert len(one["pgs"]) == tree.spec.pgs
        for pg in one["pgs"]:
            for block in pg["blocks"]:
                piece = tree.files[block["path"]][block["offset"] : block["offset"] + block["data_length"]]
                # Object header, meta as a string, block as a string.
                (length,) = struct.unpack_from("<q", piece, 24)
                body = piece[48 : 48 + length]
                at = 6
                for _ in range(2):
                    size, shift = 0, 0
                    while True:
                        size |= (body[at] & 127) << shift
                        shift += 7
                        at += 1
                        if not body[at - 1] & 128:
                            break
                    found, at = body[at : at + size], at + size + 1
                assert at == length
                assert hashlib.sha256(found).hexdigest() == block["sha256"]
                assert struct.unpack_from("<i", found, 8) == (1001,)
                reused += block["backup_set_id"] != one["set_id"]
    assert reused > 10


@pytest.mark.parametrize("layout", LAYOUTS)
def test_framed_files_are_frames_with_an_end_mark(layout):
    tree = TREES[layout]
    for path in tree.paths("/macro_block") + tree.paths("/meta_"):
        data = tree.files[path]
        assert len(data) % 4096 == 0
        *_, (start, length, align) = frames(data)
        assert data[start] == 10 and (length, align) == (0, 4048) and start + 4096 == len(data)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_log_is_where_the_truth_says(layout):
    tree = TREES[layout]
    assert {one["status"] for one in tree.truth["rounds"]} == {"stop", "doing"}
    ids = {}
    for one in tree.truth["rounds"]:
        for pg in one["pgs"]:
            run = [row[0] for row in pg["logs"]]
            assert run == list(range(pg["first_log_id"], pg["last_log_id"] + 1))
            assert run[0] == ids.get(pg["pg"], 0) + 1
            ids[pg["pg"]] = run[-1]
            assert [row[1] for row in pg["logs"]] == sorted(row[1] for row in pg["logs"])
            newest = tree.files[pg["data_files"][-1]]
            start, size = blocks(newest)[-1]
            assert start + size == len(newest)
            assert struct.unpack_from(">i", newest, len(newest) - 4) == (start,)
            assert struct.unpack_from(">q", newest, start + 48) == (pg["last_log_id"],)


def test_murmur_agrees_with_the_other_writer():
    from mover.store.sim.packing import murmur64a

    for data in (b"", b"abc", b"12345678", b"0123456789abcdef!"):
        assert murmur64a(data, 7) == murmur(data, 7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_damage_changes_something_and_says_where(layout):
    tree = TREES[layout]
    found = kinds(tree)
    assert len(found) > 250
    for kind in found:
        damaged = damage(tree, kind, 1)
        differ = {path for path in tree.files if damaged.tree.files.get(path) != tree.files[path]}
        assert differ and damaged.kind == kind
        assert damaged.silent or {finding.path for finding in damaged.findings} >= differ
        assert damage(tree, kind, 1).tree.files == damaged.tree.files


def test_an_index_goes_on_in_the_next_attempts_file():
    plain, split = (build(TreeSpec(seed=3, retries=retries)) for retries in (False, True))
    assert split.paths("major_data/macro_block_index_1.1")
    for path in split.paths("major_data/macro_block_index_1.1"):
        first, second = split.files[path.removesuffix(".1")], split.files[path]
        # Frame for frame the same, but for the end mark in the middle.
        assert first[:-4096] + second == plain.files[path.removesuffix(".1")]
    assert len(split.paths("meta_index_file_")) > len(plain.paths("meta_index_file_"))
