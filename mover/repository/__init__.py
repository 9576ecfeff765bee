"""The backup tree at a destination: what its records say, read and written as records, not as bytes."""
