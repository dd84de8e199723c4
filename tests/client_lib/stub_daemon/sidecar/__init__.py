"""A stub of the daemon, for processes that start one."""
