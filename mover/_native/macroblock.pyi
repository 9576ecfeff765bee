from typing_extensions import Buffer

from mover.kernel.macroblock import MacroHeader

def macroblock_check(block: Buffer) -> MacroHeader: ...
