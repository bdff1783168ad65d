"""The tags of this project on Dagster's jobs, runs and ops. Stored runs carry them, so their names cannot change."""

# On jobs, and so on their runs.
PIPELINE_TAG = "bonseyes/pipeline"
VERSION_TAG = "bonseyes/version"
# On runs.
RUN_TAG = "bonseyes/run"
REUSE_TAG = "bonseyes/reuse"
IDEMPOTENCY_TAG = "bonseyes/idempotency-key"
# The digest of the request that carried the key.
IDEMPOTENCY_BODY_TAG = "bonseyes/idempotency-body"
# On runs whose id is a hash of their name. Each run of the same name has another value, which tells them apart.
LAUNCH_TAG = "bonseyes/launch"
# The token of the files that were uploaded with the run.
UPLOADS_TAG = "bonseyes/uploads"
# On a run that is being deleted; the second one says to delete its artifacts too. The value is the run's id.
DELETED_TAG = "bonseyes/deleted"
DELETE_ARTIFACTS_TAG = "bonseyes/delete-artifacts"
# On ops.
CONTAINER_TAG = "bonseyes/container"
OUTPUT_TYPE_TAG = "bonseyes/output-type"
