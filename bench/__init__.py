"""Measurements that anyone can repeat: `python -m bench COMMAND`."""
