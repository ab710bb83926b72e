# Prefect's server and workers, and CPU flows with the embedded engines. Build from the repository's root:
#   docker build -f infra/images/cpu.Dockerfile -t infinidub-cpu \
#     --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu .
# Without that index pip takes torch's CUDA build, which works and is 5 GB larger.
FROM python:3.11-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL}
WORKDIR /app
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt README.md LICENSE prefect.yaml ./
COPY infinitetalk infinitetalk
COPY models models
COPY tasks tasks
COPY flows flows
# Editable: prefect.yaml lies beside the packages, where `infinidub deploy` looks for it.
RUN /opt/venv/bin/python -m pip install -c constraints.txt -e '.[embedded,kubernetes]' && /opt/venv/bin/python -m compileall -q /app

FROM python:3.11-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends ffmpeg espeak-ng apertium apertium-eng-spa apertium-eng-cat \
    apertium-en-gl apertium-fra-cat apertium-cat-ita apertium-por-cat \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin infinidub \
 && install -d -o 10001 -g 10001 /catalogs /dubbed /state /weights
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
WORKDIR /catalogs
USER 10001:10001
CMD ["infinidub", "--help"]
