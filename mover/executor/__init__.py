"""Who carries tasks out: on this host, or on many."""
