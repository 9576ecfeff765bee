"""The built extensions; ``mover.kernel`` picks them or their twins. Sources are in ``_native/`` beside the package."""
