#!/usr/bin/env bash
# The stages of DeepSeek-R1 on generated tasks, from nothing to the report card: recipes/r1.json. The same command again goes on
# where it was stopped.   recipes/r1.sh [FLAGS OF wels r1]
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
"$wels" r1 recipes/r1.json --out "${WELS_OUT:-out/r1}" "$@"
