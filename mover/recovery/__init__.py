"""From backups back to stores: what can be restored, restoring it, and proving that it could be."""
