#!/usr/bin/env bash
# Installs what is missing, builds and passes all tests: unit tests, golden data, lint, end to end, sanitizers, fuzzing.
#   ./test.sh          everything
#   ./test.sh quick    without the sanitizer build and the fuzzers
set -euo pipefail
case ${1:-} in
  -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;;
  quick | "") ;;
  *) echo "error: $1: there is no such job; use quick, or nothing" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "error: $2: one argument too many; use ./test.sh or ./test.sh quick" >&2; exit 2; }
cd "$(dirname "$0")"
tools/install.sh dpkg-dev file curl openssl python3 zstd  # what tests of packages and of the API's examples use
command -v npm >/dev/null || tools/install.sh nodejs npm
# The browser tests want a newer node than Debian 12's; they are left out where there is none.
if node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)'; then
  { tools/install.sh chromium fonts-noto-cjk && (cd web && npm ci --no-audit --no-fund --loglevel=error); } ||
    echo "the browser tests are left out: no Chromium or no registry"
fi
(cd tests/clients && npm ci --no-audit --no-fund --loglevel=error) || echo "the npm clients are left out: no registry"
jobs=$(nproc)
step() { echo "== $* (after $((SECONDS / 60)) min)"; }
export OMP_WAIT_POLICY=passive  # tests run side by side: no thread should spin while it waits

step "release: build and all tests"
cmake --preset release -DWELS_TESTS=ON >/dev/null
cmake --build --preset release
ctest --test-dir build/release -j "$jobs" --output-on-failure --no-tests=error | tee build/release/ctest.log
if [ "${1:-}" != quick ]; then
  step "address and undefined-behaviour sanitizers"
  cmake --preset asan -DWELS_TESTS=ON >/dev/null
  cmake --build --preset asan --target sanitized_tests
  # Left out: long runs over code that shorter tests pass through as well.
  ctest --test-dir build/asan -j "$jobs" --output-on-failure --no-tests=error -L sanitized \
    -E '^(MemoryPlan\.(LargerPresets|EveryDevice)|SftStage\.LearnsAnswers|RlStageTest\.AdaptersAloneLearn|DistillTest\.ADenseStudent|RlStageTest\.TheBaseGuesses|ColearnTest\.(EveryModel|QuestionsThatTheSmall))'
  step "fuzzing the parsers, ${WELS_FUZZ_SECONDS:-15} s each"
  tools/install.sh clang libclang-rt-dev libomp-dev
  tools/fuzz.sh "${WELS_FUZZ_SECONDS:-15}"
fi
# The runner's closing line once more, after everything else has passed.
grep -E "tests passed, [0-9]+ tests failed out of" build/release/ctest.log
