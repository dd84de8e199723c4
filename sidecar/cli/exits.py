"""Exit codes, after sysexits.h: a supervisor restarts on some and gives up on others."""

EX_OK = 0
EX_UNWELL = 1  # of a daemon that answers, but is not well
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_CANTCREAT = 73
EX_TEMPFAIL = 75  # the same may succeed later: a full disk, too little memory
EX_CONFIG = 78
EX_INTERRUPTED = 130  # as a shell says it of what Ctrl-C has ended
