"""Physical backup, log archiving and point-in-time restore for OceanBase stores."""

__version__ = "0.1.0"
