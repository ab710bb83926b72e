#!/usr/bin/env bash
# Sets up what `make demo` and `make test` need: programs, .venv, weights. Safe to repeat; does nothing when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m› %s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

# -- programs ---------------------------------------------------------------------------------------------------------
PAIRS="apertium-eng-spa apertium-eng-cat apertium-en-gl apertium-fra-cat apertium-cat-ita apertium-por-cat"
packages=()
command -v ffmpeg >/dev/null || packages+=(ffmpeg)
command -v espeak-ng >/dev/null || packages+=(espeak-ng)
if command -v apertium >/dev/null; then
  have=$(apertium -l)
  for mode in eng-spa eng-cat en-gl cat-fra cat-ita cat-por; do
    grep -qE "^ *${mode}$" <<<"$have" || { packages+=(apertium $PAIRS); break; }
  done
else
  packages+=(apertium $PAIRS)
fi
if command -v ldconfig >/dev/null; then          # the synthetic world draws by OpenGL through EGL, without a screen
  libraries=$(ldconfig -p)
  grep -q 'libEGL\.so\.1' <<<"$libraries" || packages+=(libegl1)
  grep -q 'libGL\.so\.1' <<<"$libraries" || packages+=(libgl1)
  grep -q 'libEGL_mesa\.so\.0' <<<"$libraries" || packages+=(libegl-mesa0 libgl1-mesa-dri)
fi
PYTHON=${PYTHON:-}
for candidate in $PYTHON python3.11 python3 python3.12; do
  command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
    && { PYTHON=$candidate; break; }
done
[ -n "$PYTHON" ] || die "Python 3.11 or 3.12 is needed. Install it, or name it: make setup PYTHON=/path/to/python3.11"
"$PYTHON" -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
  else
    die "missing programs. Install them as root and run this again:
    apt-get install ${packages[*]}"
  fi
fi

# -- .venv ------------------------------------------------------------------------------------------------------------
stamp=.venv/.set-up
now=$(cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)
if [ "$(cat $stamp 2>/dev/null)" != "$now" ]; then
  say "installing Python packages into .venv (once; a minute or two)"
  [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt \
    -e '.[embedded,separation,infinitetalk,world,experiment,kubernetes,test]' \
    2> >(grep -v '^WARNING: Location' >&2)
  echo "$now" > $stamp
fi

# -- weights ----------------------------------------------------------------------------------------------------------
.venv/bin/infinidub models pull whisper-base kokoro ge2e
