"""What holds for all tests, however they were started."""

import signal

# A shell that starts tests in the background has them ignore SIGINT, and so does all that they start: programs that
# Dagster ends by SIGINT would go on for ever, and Ctrl-C could not be tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
