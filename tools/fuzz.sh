#!/usr/bin/env bash
# Builds the fuzz targets and runs each for SECONDS; a crash, a leak or a hang fails. Findings are left in build/fuzz/findings.
# A parser that hangs is found by the fuzzer itself (-timeout). A fuzzer that does not end although it has found nothing (seen once;
# why is not known) is stopped and run once more.
set -euo pipefail
seconds=${1:-15}
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --target fuzzers
mkdir -p build/fuzz/findings
for target in build/fuzz/*_fuzz; do
  name=$(basename "$target")
  mkdir -p "build/fuzz/corpus/$name"
  echo "fuzzing $name"
  for attempt in 1 2; do
    code=0
    timeout -k 10 $((seconds + 120)) "$target" "build/fuzz/corpus/$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 \
      -artifact_prefix=build/fuzz/findings/ >"build/fuzz/$name.log" 2>&1 || code=$?
    [ $code = 124 ] || [ $code = 137 ] || break
    tail -n 5 "build/fuzz/$name.log"
    echo "$name did not end (attempt $attempt)"
  done
  [ $code = 0 ] || { tail -n 40 "build/fuzz/$name.log"; echo "error: $name found something (exit code $code)" >&2; exit 1; }
  grep -E "^Done|^stat::number_of_executed" "build/fuzz/$name.log" || true
done
