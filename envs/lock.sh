#!/bin/sh
# Lock the requirements, or check the lock.
#   lock.sh         makes requirements.txt from requirements.in, with versions for every platform, markers and hashes
#   lock.sh check   resolves requirements.txt for each supported platform and Python, with wheels only
set -eu
here=$(cd "$(dirname "$0")" && pwd)
uv="$here/../.venv/bin/uv"

if [ "${1:-}" = check ]; then
  # The wheels of PyTorch for Apple silicon need macOS 14.
  export MACOSX_DEPLOYMENT_TARGET=14.0
  for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin; do
    for python in 3.11 3.12 3.13; do
      # connection-pool is pure Python and has no wheel.
      "$uv" pip compile --quiet --no-header --no-annotate --python-platform "$platform" --python-version "$python" \
        --only-binary :all: --no-binary connection-pool "$here/requirements.txt" > /dev/null
      echo "$platform, Python $python: every requirement has a wheel"
    done
  done
  exit 0
fi

# The versions in an existing requirements.txt are kept if requirements.in allows them. Remove the file to update them all.
"$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --custom-compile-command "make lock" "$here/requirements.in" --output-file "$here/requirements.txt"
