"""Setup for all tests, however they were started."""

import signal

# A shell makes background processes ignore SIGINT, and their children inherit this. Without the next line, programs
# that Dagster ends by SIGINT would run for ever, and no test could send Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
