# Segue's image: worker and command line. Without a builder of images, `segue local segue-image` makes the same.
#   docker build --build-arg REVISION=$(git rev-parse HEAD) --tag registry.example.com/segue:0.1.0 .
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
COPY --from=ghcr.io/astral-sh/uv:0.13.8 /uv /bin/uv
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY segue segue
COPY workflows workflows
COPY activities activities
COPY worker worker
COPY deploy/local/segue_local deploy/local/segue_local
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/srv/segue
RUN uv sync --locked --no-dev --no-editable
RUN /srv/segue/bin/python -m segue_local.unused_client /srv/segue/lib/python*/site-packages

FROM python:${PYTHON}-slim-bookworm
ARG SOURCE="" REVISION=""
LABEL org.opencontainers.image.title="segue" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /srv/segue /srv/segue
# A number: Kubernetes cannot tell whether a name is root.
USER 10001:10001
WORKDIR /tmp
# The root is read-only: nothing but /tmp is written, and all is compiled already.
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["/srv/segue/bin/python", "-m", "segue"]
CMD ["worker"]
