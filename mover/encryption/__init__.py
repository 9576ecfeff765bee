"""Encryption at rest: data keys, how they are wrapped, and the cipher. Knows no file and no destination."""
