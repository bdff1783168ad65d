# Dagster's services with this project's pipelines, and the tools' descriptions that its ops are made of.
ARG BONSEYES_VERSION=latest
FROM bonseyes/dagster:${BONSEYES_VERSION}
COPY definitions.py workspace.yaml /project/
COPY components /project/components
COPY containers /project/containers
