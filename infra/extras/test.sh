#!/usr/bin/env bash
# Installs whisperx, coqui-tts and diffusers into .venv-extras and tests the engines that need them. Safe to repeat:
# nothing is installed again until the locked requirements change.
set -euo pipefail
cd "$(dirname "$0")/../.."
say() { printf '\033[1m› %s\033[0m\n' "$*" >&2; }

python=.venv-extras/bin/python
stamp=.venv-extras/.set-up
now=$(cat infra/extras/requirements.txt infra/extras/test.sh | sha256sum | cut -d' ' -f1)
if [ "$(cat $stamp 2>/dev/null)" != "$now" ]; then
  say "installing Python packages into .venv-extras (once; some minutes, 2 GB)"
  [ -x $python ] || .venv/bin/python -m venv .venv-extras
  install() { $python -m pip install -q --disable-pip-version-check "$@" 2> >(grep -v '^WARNING: Location' >&2); }
  install -c infra/extras/requirements.txt torch      # with what it needs, which differs between CPU and CUDA builds
  install --no-deps -r infra/extras/requirements.txt
  # torchaudio's libraries are linked against CUDA: with a CPU build of torch its import fails unless they are absent
  # (its loader tolerates that; only forced_align is lost).
  site=$($python -c 'import sysconfig; print(sysconfig.get_paths()["platlib"])')
  [ "$($python -c 'import torch; print(torch.version.cuda)')" != None ] || rm -f "$site"/torchaudio/lib/*.so
  echo "$now" > $stamp
fi
$python -m pytest -p no:cacheprovider tests/test_extras.py tests/test_recognizer_port.py tests/test_diarizer_port.py "$@"
exec $python -m pytest -p no:cacheprovider tests/test_synthesizer_port.py -k coqui
