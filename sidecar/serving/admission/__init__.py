"""Who may use the daemon, and how much of it each user and process may have."""
