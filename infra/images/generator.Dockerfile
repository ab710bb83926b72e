# Shards on GPU nodes: InfiniteTalk and the small generators. torch brings CUDA's libraries, the node the driver.
#   docker build -f infra/images/generator.Dockerfile -t infinidub-generator .
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt README.md LICENSE prefect.yaml ./
COPY infinitetalk infinitetalk
COPY models models
COPY tasks tasks
COPY flows flows
RUN /opt/venv/bin/python -m pip install -c constraints.txt -e '.[infinitetalk]' && /opt/venv/bin/python -m compileall -q /app

FROM python:3.11-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends ffmpeg \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin infinidub \
 && install -d -o 10001 -g 10001 /catalogs /dubbed /state /weights
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# Which of the node's devices and driver libraries NVIDIA's container runtime puts in.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
WORKDIR /catalogs
USER 10001:10001
CMD ["infinidub", "--help"]
