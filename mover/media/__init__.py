"""What bytes at the destination mean. No I/O in here."""
