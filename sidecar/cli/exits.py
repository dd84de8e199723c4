"""Exit codes, as in sysexits.h: a supervisor restarts on some and gives up on others."""

EX_OK = 0
EX_UNWELL = 1  # a daemon answers, but is not well
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_CANTCREAT = 73
EX_TEMPFAIL = 75  # may succeed later: the disk was full, or memory ran out
EX_CONFIG = 78
EX_INTERRUPTED = 130  # a shell's code for a command ended by Ctrl-C
EX_PIPE = 141  # likewise for one whose output nobody reads any more
