#!/usr/bin/env bash
# Brings Debian packages: debian_tools.sh FOLDER INSTALLED... -- UNPACKED...
#
# What is INSTALLED is so by apt-get where root runs this. For another user it is unpacked below FOLDER, with all that
# it needs and the machine lacks; a compiler cannot be had so and must be there. What is UNPACKED is never installed:
# packages that would start a server are only taken apart.
set -euo pipefail

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
  echo "there is no apt-get here: what needs Debian packages runs on Debian and its children only" >&2
  exit 1
fi
folder=$1
shift
installed=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  installed+=("$1")
  shift
done
shift || true
unpacked=("$@")

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage" # apt-get gives up its rights to download

unpack() {
  local name
  for name in "$@"; do
    [ -e "$folder/.packages/$name" ] && continue
    (cd "$stage" && apt-get download -qq "$name" 2>/dev/null) || {
      echo "the Debian package $name cannot be downloaded: run 'apt-get update' as root, and look at sources.list" >&2
      exit 1
    }
    dpkg -x "$stage/$name"_*.deb "$folder"
    mkdir -p "$folder/.packages"
    touch "$folder/.packages/$name"
  done
}

missing=()
for name in "${installed[@]}"; do
  dpkg-query --show --showformat='${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
done

packed=()
for name in "${unpacked[@]}"; do
  [ -e "$folder/.packages/$name" ] || packed+=("$name")
done

if [ "$(id -u)" = 0 ]; then
  if [ $((${#missing[@]} + ${#packed[@]})) -gt 0 ]; then
    apt-get update -qq
  fi
  if [ ${#missing[@]} -gt 0 ]; then
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "${missing[@]}"
  fi
elif [ ${#missing[@]} -gt 0 ]; then
  mapfile -t needed < <(apt-get --simulate --no-install-recommends install "${missing[@]}" | awk '/^Inst/ {print $2}')
  unpack "${needed[@]}"
fi
unpack "${packed[@]}"
