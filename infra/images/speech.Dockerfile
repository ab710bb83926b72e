# CPU flows with production's speech engines (whisperx, coqui-tts) besides the embedded ones that they need. Built on
# infinidub-cpu; its packages are locked in infra/extras, since no resolver accepts whisperx's own pins.
#   docker build -f infra/images/speech.Dockerfile -t infinidub-speech .
ARG BASE=infinidub-cpu
FROM ${BASE}
USER 0:0
WORKDIR /app
COPY infra/extras/requirements.txt infra/extras/requirements.txt
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# As infra/extras/test.sh installs them; there it is tested. torch is the base's.
RUN python -m pip install --no-deps -r infra/extras/requirements.txt \
 && site=$(python -c 'import sysconfig; print(sysconfig.get_paths()["platlib"])') \
 && { [ "$(python -c 'import torch; print(torch.version.cuda)')" != None ] || rm -f "$site"/torchaudio/lib/*.so; }
WORKDIR /catalogs
USER 10001:10001
CMD ["infinidub", "--help"]
