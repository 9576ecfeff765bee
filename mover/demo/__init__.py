"""The whole story on a throw-away engine; the same functions that the commands call, in one process."""
