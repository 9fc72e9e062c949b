# Two images of one source: `api` without torch (it also migrates), `worker` with it.
#   docker build --target api -t evenkeel-api .
#   docker build --target worker -t evenkeel-worker .
# TORCH_INDEX_URL: an index with another build of torch, for instance one for CPUs only, which is far smaller.
# Without it the worker gets the default build, which brings what it needs for NVIDIA GPUs.
# The one that constraints.txt was made with.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/evenkeel
WORKDIR /source

FROM build AS build-api
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/evenkeel/bin/pip install --quiet -c constraints.txt '.[server,postgres,s3]'

FROM build AS build-worker
ARG TORCH_INDEX_URL=
COPY constraints.txt .
# Before the source: a change of ours does not fetch torch again.
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/evenkeel/bin/pip install --quiet -c constraints.txt \
        ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} "$(grep '^torch==' constraints.txt)"
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/evenkeel/bin/pip install --quiet -c constraints.txt '.[worker,postgres,s3]'

FROM python:${PYTHON_VERSION}-slim AS base
# One numeric user in both images, so that they can share a volume; a new named volume takes over these owners.
RUN groupadd --gid 10001 evenkeel \
    && useradd --uid 10001 --gid 10001 --no-log-init --create-home --home-dir /var/lib/evenkeel evenkeel \
    && install --directory --owner evenkeel --group evenkeel /shared /shared/artifacts /shared/data
ENV PATH=/opt/evenkeel/bin:$PATH PYTHONUNBUFFERED=1 HOME=/var/lib/evenkeel EVENKEEL_HOME=/var/lib/evenkeel
WORKDIR /var/lib/evenkeel
USER 10001:10001
ENTRYPOINT ["evenkeel"]

FROM base AS api
COPY --from=build-api /opt/evenkeel /opt/evenkeel
ENV EVENKEEL_HOST=0.0.0.0
EXPOSE 8321
CMD ["api"]

FROM base AS worker
COPY --from=build-worker /opt/evenkeel /opt/evenkeel
# What the NVIDIA container runtime hands in; without that runtime they mean nothing.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
CMD ["worker"]
