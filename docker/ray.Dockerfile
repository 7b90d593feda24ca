# A node of the Ray cluster: the head, or a worker that trains. Its Python is the other images': Ray asks for that.
FROM python:3.11.14-slim-bookworm

RUN useradd --uid 10001 --create-home fasterseg && install --directory --owner=fasterseg /locks
WORKDIR /opt/fasterseg
COPY pyproject.toml constraints.txt LICENSE README.md ./
COPY fasterseg_core fasterseg_core
COPY services services
# PyPI's torch brings CUDA; the build argument PIP_EXTRA_INDEX_URL may name an index with a smaller build for CPUs.
ARG PIP_EXTRA_INDEX_URL
RUN pip install --no-cache-dir --constraint constraints.txt '.[worker]'

USER fasterseg
WORKDIR /home/fasterseg
ENV PYTHONUNBUFFERED=1 GLIBC_TUNABLES=glibc.malloc.tcache_count=0 GOMP_SPINCOUNT=1000 \
    RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_DEDUP_LOGS=0 RAY_DISABLE_WORKER_LOG_PREFIX=1 RAY_gcs_rpc_server_reconnect_timeout_s=5
HEALTHCHECK --interval=10s --timeout=15s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:52365/api/local_raylet_healthz')"]
CMD ["ray", "start", "--block", "--address=ray-head:6379"]
