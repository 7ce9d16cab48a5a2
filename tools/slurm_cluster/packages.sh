#!/bin/sh
# The Debian packages of the test cluster. `packages.sh list` prints them, `missing` those not installed,
# `install` installs what is missing (as root). `packages.sh ACTION no-accounting` leaves the data base out.
set -eu

packages="slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins"
[ "${2:-}" = no-accounting ] || packages="$packages slurmdbd slurm-wlm-mysql-plugin mariadb-server"

missing() {
  for package in $packages; do
    dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2> /dev/null | grep -qx installed || echo "$package"
  done
}

case "${1:-}" in
  list) printf '%s\n' $packages ;;
  missing) missing ;;
  install)
    wanted=$(missing)
    [ -z "$wanted" ] && exit 0
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    # shellcheck disable=SC2086 # a list of words
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $wanted; } > "$log" 2>&1 ||
      { tail -n 20 "$log"; rm "$log"; exit 1; }
    rm "$log"
    ;;
  *)
    echo "usage: packages.sh list|missing|install [no-accounting]" >&2
    exit 2
    ;;
esac
