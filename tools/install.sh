#!/usr/bin/env bash
# Installs what wels is built from, if anything is missing. Debian 12 packages only. Arguments: further packages.
set -euo pipefail
packages=(cmake ninja-build g++ pkg-config ccache libpcre2-dev nlohmann-json3-dev libcli11-dev libfmt-dev libspdlog-dev
          libzstd-dev zlib1g-dev libutf8proc-dev libedit-dev libcurl4-openssl-dev libboost1.81-dev libssl-dev libsqlite3-dev libgtest-dev libgmock-dev bubblewrap "$@")
missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
command -v apt-get >/dev/null || { echo "error: need the packages ${missing[*]} (Debian names)" >&2; exit 2; }
sudo=; [ "$(id -u)" -eq 0 ] || sudo=sudo
echo "installing ${missing[*]}"
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
