# The API and the dispatcher: no torch.
FROM python:3.11.14-slim-bookworm

RUN useradd --uid 10001 --create-home fasterseg \
    && install --directory --owner=fasterseg /var/lib/fasterseg
WORKDIR /opt/fasterseg
COPY pyproject.toml constraints.txt LICENSE README.md ./
COPY fasterseg_core fasterseg_core
COPY services services
RUN pip install --no-cache-dir --constraint constraints.txt '.[server]'

USER fasterseg
WORKDIR /var/lib/fasterseg
ENV PYTHONUNBUFFERED=1 FASTERSEG_HOST=0.0.0.0 FASTERSEG_STATE_FOLDER=/var/lib/fasterseg
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=15s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/api/v1/health/live')"]
CMD ["python", "-m", "services.control_plane"]
