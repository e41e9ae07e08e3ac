#!/usr/bin/env bash
# The main job: install what is missing, build, train the nano preset for about three minutes on the given texts (or on text
# found on this machine), write a report, and print what the model writes.
#   ./run.sh [FILE|FOLDER...]
#   WELS_MINUTES=10 WELS_OUT=out/mine ./run.sh mybook.txt
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
"$here/tools/install.sh"
cmake -S "$here" -B "$here/build/release" -G Ninja -DCMAKE_BUILD_TYPE=Release -DWELS_TESTS=OFF >/dev/null
cmake --build "$here/build/release" --target wels
out=${WELS_OUT:-out/run-$(date +%Y%m%d-%H%M%S)}
"$here/build/release/wels" pretrain "$@" --out "$out" --preset nano --minutes "${WELS_MINUTES:-3}" \
  --eval-every 50 --save-every 200 --sample-every 100
echo "--- what it writes ---"
"$here/build/release/wels" generate "$out" --max-tokens 200 --temperature 0.8
echo "--- read $out/report.html; go on: ./build/release/wels generate $out \"Some words\" ---"
