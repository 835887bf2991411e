# The coordinator. Built for the architecture of the machine that builds it; for Fargate on ARM: docker build --platform linux/arm64
FROM python:3.12-slim AS build
COPY --from=ghcr.io/astral-sh/uv:0.9 /uv /usr/local/bin/uv
WORKDIR /app
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-dev --extra runtime --no-install-project
COPY sdk sdk
COPY runtime runtime
RUN uv sync --frozen --no-dev --extra runtime --no-editable

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /nonexistent holdfast
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 HOLDFAST_LOG_FORMAT=json HOLDFAST_INGRESS=0.0.0.0:8080 HOLDFAST_ADMIN=127.0.0.1:9070
USER holdfast
EXPOSE 8080 9070
STOPSIGNAL SIGTERM
ENTRYPOINT ["holdfast"]
CMD ["serve"]
