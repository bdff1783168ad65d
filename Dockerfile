# The base images of every project. docker-compose-build.yml names them. docs/images.md explains the layers: content
# that changes rarely comes first. This package's code comes last, so a change of it rebuilds in seconds.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG NGINX_IMAGE=nginxinc/nginx-unprivileged:stable

# --- Python, the user and the environment of every container --------------------------------------------------------
FROM ${PYTHON_IMAGE} AS system
# The root of a container is read-only, so the home is /tmp. A tool's version depends on its Python packages and,
# through BONSEYES_IMAGE, on Debian's packages.
ENV HOME=/tmp \
    LANG=C.UTF-8 \
    MPLCONFIGDIR=/tmp/matplotlib \
    ORT_DISABLE_TELEMETRY=1 \
    DAGSTER_DISABLE_TELEMETRY=yes \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_CONSTRAINT=/opt/bonseyes/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    BONSEYES_IMAGE=/var/lib/dpkg/status \
    BONSEYES_VOLUME=/volume \
    PATH=/opt/bonseyes/bin:$PATH
# The package is in its own folder, at the same path for every Python version. The .pth file adds it to Python's path.
RUN groupadd --gid 10001 bonseyes \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin bonseyes \
 && install --directory --owner=bonseyes --group=bonseyes /volume \
 && mkdir -p /opt/bonseyes /project \
 && echo /opt/bonseyes >"$(python -c 'import site; print(site.getsitepackages()[0])')/bonseyes.pth"
COPY constraints.txt /opt/bonseyes/
WORKDIR /project

FROM system AS package
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST
COPY requirements/build.txt /tmp/
RUN pip install --require-hashes --requirement /tmp/build.txt
COPY pyproject.toml /tmp/source/
COPY bonseyes_dagster /tmp/source/bonseyes_dagster
# The same code must give the same files: compiled modules have no times, and the README is empty.
RUN touch /tmp/source/README.md \
 && pip install --no-deps --no-build-isolation --no-compile --target /tmp/package /tmp/source \
 && python -m compileall -q --invalidation-mode unchecked-hash /tmp/package

# --- Tools, the dashboard and the gateway's access rules ------------------------------------------------------------
FROM system AS tool-dependencies
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST
COPY requirements/tool.txt /opt/bonseyes/
RUN pip install --require-hashes --requirement /opt/bonseyes/tool.txt
USER 10001:10001
EXPOSE 80
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s CMD ["python", "-m", "bonseyes_dagster.web.health"]
CMD ["python", "-m", "bonseyes_dagster.tool", "--bind", "0.0.0.0:80"]

FROM tool-dependencies AS tool
COPY --from=package /tmp/package /opt/bonseyes

# --- TensorBoard ----------------------------------------------------------------------------------------------------
FROM tool-dependencies AS visualization
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST
COPY requirements/visualization.txt /opt/bonseyes/
USER root
RUN pip install --require-hashes --requirement /opt/bonseyes/visualization.txt
USER 10001:10001
CMD ["python", "-m", "bonseyes_dagster.visualization", "--bind", "0.0.0.0:80"]
COPY --from=package /tmp/package /opt/bonseyes

# --- Dagster: code server, run server, webserver, daemon, and the pipelines -----------------------------------------
FROM tool-dependencies AS dagster
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST
COPY requirements/pipeline.txt /opt/bonseyes/
USER root
RUN pip install --require-hashes --requirement /opt/bonseyes/pipeline.txt \
 && install --directory --owner=bonseyes --group=bonseyes /dagster /secrets
USER 10001:10001
ENV DAGSTER_HOME=/dagster \
    BONSEYES_PROJECT=/project
CMD ["python", "-m", "bonseyes_dagster.pipeline", "--bind", "0.0.0.0:80"]
COPY --from=package /tmp/package /opt/bonseyes

# --- nginx, with a configuration for the project's containers -------------------------------------------------------
FROM tool AS gateway-configuration
COPY docker-compose.yml /tmp/
# The published port leads to the network edge. nginx does not listen on the other networks, where tools are.
RUN python -m bonseyes_dagster.gateway.nginx /tmp/docker-compose.yml --listen gateway.edge:8080 >/tmp/nginx.conf

FROM ${NGINX_IMAGE} AS gateway
COPY --from=gateway-configuration /tmp/nginx.conf /etc/nginx/nginx.conf
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8081 && \
  printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r answer <&3 && [[ $answer == *' 200 '* ]]"]
STOPSIGNAL SIGTERM
