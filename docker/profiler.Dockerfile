# A Ray node that measures latency on an NVIDIA GPU and serves estimates; run it with the NVIDIA container runtime.
FROM nvidia/cuda:13.0.1-devel-ubuntu22.04 AS cuda

FROM python:3.11.14-slim-bookworm AS wheels
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY --from=cuda /usr/local/cuda /usr/local/cuda
COPY constraints.txt ./
RUN CUDA_ROOT=/usr/local/cuda LIBRARY_PATH=/usr/local/cuda/lib64/stubs \
    pip wheel --no-cache-dir --no-deps --constraint constraints.txt --wheel-dir /wheels pycuda

FROM python:3.11.14-slim-bookworm
RUN useradd --uid 10001 --create-home fasterseg && install --directory --owner=fasterseg /locks
COPY --from=cuda /usr/local/cuda/lib64/libcurand.so.10 /usr/local/lib/
COPY --from=wheels /wheels /wheels
WORKDIR /opt/fasterseg
COPY pyproject.toml constraints.txt LICENSE README.md ./
COPY fasterseg_core fasterseg_core
COPY services services
RUN ldconfig && pip install --no-cache-dir --constraint constraints.txt --find-links /wheels '.[worker,gpu]'

USER fasterseg
WORKDIR /home/fasterseg
ENV PYTHONUNBUFFERED=1 GLIBC_TUNABLES=glibc.malloc.tcache_count=0 GOMP_SPINCOUNT=1000 \
    RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_DEDUP_LOGS=0 \
    RAY_DISABLE_WORKER_LOG_PREFIX=1 RAY_gcs_rpc_server_reconnect_timeout_s=5 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
HEALTHCHECK --interval=10s --timeout=15s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:52365/api/local_raylet_healthz')"]
CMD ["ray", "start", "--block", "--address=ray-head:6379", "--resources={\"profiler\": 1}"]
