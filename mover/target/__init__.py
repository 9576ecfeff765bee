"""Where bytes land."""
