"""Users who mean harm beside users who do not: `python -m bench faults --attack`.

`kinds` has the attacks, `party` the processes that carry them out, `honest` the clients beside
them, `watch` what is measured meanwhile, `verdict` (pure) what comes of the figures, `phases` the
run itself, `starts` the attacks on a daemon's start.
"""
