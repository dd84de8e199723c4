"""What an operator asks of a daemon: how it is, what it said, what is wrong with its host."""
