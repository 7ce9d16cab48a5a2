#!/bin/sh
# Make requirements.txt from requirements.in: install into an empty environment, freeze what came.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${1:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --upgrade pip
"$work/venv/bin/pip" install --quiet --requirement "$here/requirements.in"
"$work/venv/bin/pip" check
{
  echo "# Made by \`make lock\` from requirements.in; do not edit. Python 3.11, x86_64 Linux."
  # Names and versions only: no addresses, no local files.
  "$work/venv/bin/pip" freeze --all | grep -v -e '^pip==' -e ' @ '
} > "$here/requirements.txt"
