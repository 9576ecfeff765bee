"""Throughput on this hardware: mover and a peer in turn, both as processes of their own, measured by the system."""
