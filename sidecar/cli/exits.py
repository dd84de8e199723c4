"""Exit codes, after sysexits.h: a supervisor restarts on some and gives up on others."""

EX_OK = 0
EX_UNAVAILABLE = 69
EX_CONFIG = 78
