"""`python -m bonseyes_dagster.orchestration.run_server`: a project's server that forks a process for each run.

That is `execution/processes/run_server.py`, with its arguments; it also cancels the artifacts that an ended run left in
progress.
"""

from bonseyes_dagster.execution.processes.run_server import main
from bonseyes_dagster.orchestration.runs.withdrawal import withdraw

if __name__ == "__main__":
    main(withdraw)
