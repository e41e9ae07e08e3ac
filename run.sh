#!/usr/bin/env bash
# The main job: install what is missing, build, and
#   ./run.sh                          serve the shipped reasoning model: a page and DeepSeek's API on this machine (Ctrl-C ends it).
#                                     Without a terminal: asks one question through the API, prints thought and answer, and ends
#   ./run.sh [MODEL] [FLAGS]          the same with a model of yours, and flags of wels serve
#   ./run.sh zero                     R1-Zero from nothing in a few minutes: a base model on generated tasks, reinforcement learning
#                                     with the outcome as its only reward, the same question before and after, a report, a chat
#   ./run.sh pretrain [FILE|FOLDER..] learn from text for three minutes (yours, or found on this machine), then write
# WELS_OUT: where runs go (default out/...). WELS_MINUTES: of pretrain.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
case ${1:-} in
  -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;;
  zero) [ $# -eq 1 ] || { echo "error: $2: one argument too many; use ./run.sh zero" >&2; exit 2; } ;;
  pretrain | "" | -*) ;;
  *) [ -e "$1" ] || { echo "error: $1: no such model, and no job; use a model's folder, zero or pretrain" >&2; exit 2; } ;;
esac
"$here/tools/install.sh"
cmake -S "$here" -B "$here/build/release" -G Ninja -DCMAKE_BUILD_TYPE=Release -DWELS_TESTS=OFF >/dev/null
cmake --build "$here/build/release" --target wels
wels=$here/build/release/wels

serve() { # MODEL FLAGS...
  if [ -t 0 ] && [ -t 1 ]; then exec "$wels" serve "$@"; fi
  address=$(mktemp)  # not local: the trap runs outside
  "$wels" serve --port 0 "$@" >"$address" & server=$!
  trap 'kill "$server" 2>/dev/null || true; wait "$server" || true; rm -f "$address"' EXIT
  until [ -s "$address" ]; do kill -0 "$server" 2>/dev/null || exit 2; sleep 0.1; done
  local question=${WELS_QUESTION:-$("$wels" tasks "$(cat "$here/models/micro/task")" --held-out --count 1 --seed "$(date +%s)" |
    sed -n 2p)}
  echo "--- $(cat "$address"): $question"
  "$wels" chat --url "$(cat "$address")" --think "$question"
}

zero() {
  local out=${WELS_OUT:-out/zero-$(date +%Y%m%d-%H%M%S)} task=parity:20
  local question
  question=$("$wels" tasks $task --held-out --count 1 --seed 7 | sed -n 2p)
  ask() { echo "--- $1 ($question)"; "$wels" chat "$2" --think --temperature 0 -n 64 "$question"; }
  echo "--- a base model: one answer in five follows a chain of thought, four are given at once"
  "$wels" sft --preset nano --task $task --p-cot 0.2 --steps 350 --sample-every 0 --save-every 100 --out "$out/base"
  ask "before" "$out/base"
  echo "--- reinforcement learning: 1 for a right answer, else 0"
  "$wels" rl "$out/base" --task $task --max-tokens 64 --steps 40 --out "$out/zero"
  ask "after" "$out/zero"
  "$wels" eval "$out/base" --task $task
  "$wels" eval "$out/zero" --task $task
  "$wels" report "$out/base" "$out/zero" --out "$out/report.html"
  echo "--- read $out/report.html"
  if [ -t 0 ] && [ -t 1 ]; then exec "$wels" chat "$out/zero" --think; fi
  echo "--- go on: ./build/release/wels chat $out/zero --think"
}

pretrain() {
  local out=${WELS_OUT:-out/run-$(date +%Y%m%d-%H%M%S)}
  "$wels" pretrain "$@" --out "$out" --preset nano --minutes "${WELS_MINUTES:-3}" --eval-every 50 --save-every 200 --sample-every 100
  echo "--- what it writes ---"
  "$wels" generate "$out" --max-tokens 200 --temperature 0.8
  echo "--- read $out/report.html; go on: ./build/release/wels generate $out \"Some words\" ---"
}

case ${1:-} in
  zero) zero ;;
  pretrain) shift; pretrain "$@" ;;
  "" | -*) serve "$here/models/micro" "$@" ;;
  *) serve "$@" ;;
esac
