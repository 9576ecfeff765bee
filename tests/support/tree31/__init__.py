"""Writes complete backup trees as OceanBase 2.2.6x, 3.1.0 and later 3.1.x leave them, from a seed; and damages them.

Written from the format notes with the writers of ``mover.store.sim``; nothing of ``mover.media`` or mover's readers is
used, so that they are tested from a side that shares no code with them but checksums.

``build(TreeSpec(...))`` gives a ``Tree``: ``files`` (path below the root of the destination -> bytes), ``truth`` (what
a reader must find, see ``build.py``), ``write(directory)``. ``damage(tree, kind, seed)`` gives a damaged copy and what
a reader must report; ``kinds(tree)`` lists the kinds that apply to a tree.

What the notes leave open, and how it is here: directories of later 3.1.x have the same things in them as
``backup_set_<F>`` (``backup_<I>`` and ``data``); files of type 17 (backup set file infos) are not written, as their
members are not known; the content of PG metas is opaque; 3.1.0's ``archive_key`` files are empty; a
``single_piece_info`` holds one piece info without an array.
"""

from __future__ import annotations

from tree31.build import Tree, build
from tree31.damage import Damaged, Finding, damage, kinds
from tree31.spec import LAYOUTS, TreeSpec

__all__ = ["LAYOUTS", "Damaged", "Finding", "Tree", "TreeSpec", "build", "damage", "kinds"]
