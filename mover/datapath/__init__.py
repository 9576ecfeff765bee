"""The path of a macroblock: slab, kernel, packer, upload; in that order."""
