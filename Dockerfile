# The coordinator. Built for the architecture of the machine that builds it; for Fargate on ARM: docker build --platform linux/arm64
# BASE is any Debian with Python 3.11 or newer, UV any image with /uv: for machines that reach no registry of images (tests/infra/test_image.py).
ARG BASE=python:3.12-slim
ARG UV=ghcr.io/astral-sh/uv:0.9
FROM ${UV} AS uv

FROM ${BASE} AS build
COPY --from=uv /uv /usr/local/bin/uv
WORKDIR /app
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-dev --extra runtime --no-install-project
COPY sdk sdk
COPY runtime runtime
RUN uv sync --frozen --no-dev --extra runtime --no-editable

FROM ${BASE}
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin holdfast
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 HOLDFAST_LOG_FORMAT=json HOLDFAST_INGRESS=0.0.0.0:8080 HOLDFAST_ADMIN=127.0.0.1:9070
USER holdfast
EXPOSE 8080 9070
STOPSIGNAL SIGTERM
ENTRYPOINT ["holdfast"]
CMD ["serve"]
