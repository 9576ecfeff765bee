"""The coordinator: what RootService does for physical backup, from preconditions to accounting."""
