# The platform: one image for its roles (torpor role controller, gateway, events, api). Functions have images of their
# own, by `torpor build`.
#
# It runs as nobody on a read-only file system, with a writable /tmp. Layers stand in the order in which they change.

# Any image with Python 3.11 or newer, its venv and pip, and a shell.
ARG BASE=docker.io/library/python:3.13-slim
FROM ${BASE}

# Another package index than pip's own. It is kept in the image's history: no password in it.
ARG INDEX=

COPY requirements-image.lock /opt/torpor/
RUN python3 -m venv --without-pip /opt/platform \
    && python3 -m pip --python /opt/platform/bin/python install --no-cache-dir --disable-pip-version-check --no-input \
        ${INDEX:+--index-url "$INDEX"} --require-hashes --requirement /opt/torpor/requirements-image.lock

COPY pyproject.toml README.md LICENSE /opt/torpor/
COPY src/ /opt/torpor/src/
RUN python3 -m pip --python /opt/platform/bin/python install --no-cache-dir --disable-pip-version-check --no-input \
        ${INDEX:+--index-url "$INDEX"} --no-deps /opt/torpor

ENV PATH=/opt/platform/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /tmp
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["torpor"]
CMD ["--help"]
