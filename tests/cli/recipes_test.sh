#!/usr/bin/env bash
# Recipes, run.sh and test.sh refuse what they do not know before they run anything, and say why where a run of theirs fails. The runs
# are those of a stand-in: it writes down what it was asked, and fails where FAILS matches that.
here=$(cd "$(dirname "$0")/../.." && pwd)
. "$(dirname "$0")/common.sh"
cd "$scratch"
cat >stand_in <<'SH'
#!/usr/bin/env bash
echo "$*" >>"$ASKED"
if [ -n "${FAILS:-}" ] && [[ "$*" =~ $FAILS ]]; then echo "error: ${SAYS:-no such luck}" >&2; exit 2; fi
[ "$1" != eval ] || printf 'greedy   accuracy 0.5\nsampled  accuracy 0.5\npass@8 0.5\n'
while [ $# -gt 1 ]; do
  if [ "$1" = --out ] && [[ $2 != *.html ]]; then
    mkdir -p "$2/checkpoints/step-1"
    echo '{"vocab_size": 9}' >"$2/checkpoints/step-1/config.json"
    echo '{"gflops":1,"tokens_per_s":1}' >"$2/metrics.jsonl"
  fi
  shift
done
SH
chmod +x stand_in
export WELS=$scratch/stand_in ASKED=$scratch/asked WELS_OUT=$scratch/out

# refuses PATTERN COMMAND...: exit code 2 and one line, before anything has run.
refuses() {
  local pattern=$1 code=0
  shift
  rm -rf asked out
  "$@" >stdout.log 2>stderr.log || code=$?
  [ "$code" -eq 2 ] || { cat stderr.log; fail "exit code $code instead of 2: $*"; }
  [ "$(wc -l <stderr.log)" -eq 1 ] && grep -qE "^error: $pattern" stderr.log || { cat stderr.log; fail "no line with '$pattern': $*"; }
  [ ! -e asked ] && [ ! -e out ] || fail "something has run: $*"
}
refuses 'foo: there is no such arm; use base dense' "$here/recipes/compare.sh" base foo
refuses 'foo: there is no such arm; use alone A B AB' "$here/recipes/colearn.sh" AB foo
refuses 'foo: there is no such arm; use main, controls' "$here/recipes/r1_zero.sh" foo
refuses '0 arguments; use recipes/dense_student.sh TEACHER' "$here/recipes/dense_student.sh"
refuses 'nowhere: no config.json' "$here/recipes/dense_student.sh" nowhere
refuses 'big: no settings for it; use nano, micro' "$here/recipes/countdown.sh" big
refuses 'big: no settings for it; use nano, micro' "$here/recipes/reasoner.sh" big
for recipe in distill_against_rl speculation moe_against_dense peers; do
  refuses 'foo: one argument too many' "$here/recipes/$recipe.sh" foo
done
refuses 'PEERS: there is no foo; use v2 tiny qwen deep' env PEERS="tiny foo" "$here/recipes/peers.sh"
refuses 'no folder of the corpora' "$here/recipes/adapt.sh"
refuses '.*/books_en.txt.zst: no such corpus' "$here/recipes/adapt.sh" "$scratch"
touch books_en.txt.zst factbook_en.jsonl.zst
mkdir bin  # neither zstd nor node, nor what peers.sh would install
for program in bash env dirname sed grep mkdir cat; do ln -s "$(command -v $program)" bin/; done
refuses 'zstd is not there' env PATH="$scratch/bin" "$here/recipes/adapt.sh" "$scratch"
refuses 'node is not there' env PATH="$scratch/bin" "$here/recipes/peers.sh"
printf '#!/bin/sh\n' >bin/node && chmod +x bin/node
mkdir -p copy/recipes && cp "$here/recipes/peers.sh" copy/recipes/
refuses 'bench/peers/node_modules: ' env PATH="$scratch/bin" copy/recipes/peers.sh
if command -v zstd >/dev/null; then
  code=0; "$here/recipes/adapt.sh" "$scratch" 2>stderr.log || code=$?
  [ $code -eq 2 ] && grep -q 'books_en.txt.zst: no 12 MB of text' stderr.log || { cat stderr.log; fail "an empty corpus"; }
else
  echo "left out: an empty corpus, no zstd here"
fi
refuses 'foo: no such model, and no job' "$here/run.sh" foo
refuses 'foo: one argument too many' "$here/run.sh" zero foo
refuses 'foo: there is no such job' "$here/test.sh" foo
for script in run.sh test.sh; do
  "$here/$script" --help >help || fail "$script --help"
  grep -qF "./$script" help && ! grep -q 'set -e' help || { cat help; fail "$script --help"; }
done

# run.sh with the program that is here, and no terminal: flags reach the server, and one that is wrong is all that is said.
mkdir -p copy/tools copy/build/release
cp "$here/run.sh" copy/
printf '#!/bin/sh\n' | tee copy/tools/install.sh >bin/cmake
chmod +x copy/tools/install.sh bin/cmake
ln -s "$wels" copy/build/release/wels
ln -s "$here/models" copy/models
for flags in "" "--port 0" "copy/models/nano --port 0"; do
  # shellcheck disable=SC2086
  PATH=$scratch/bin:$PATH WELS_QUESTION=12+34 copy/run.sh $flags </dev/null >stdout.log 2>stderr.log ||
    { cat stdout.log stderr.log; fail "run.sh $flags"; }
  grep -q '^--- http://127.0.0.1:[0-9]*: 12+34$' stdout.log || { cat stdout.log stderr.log; fail "run.sh $flags asks nothing"; }
done
code=0; PATH=$scratch/bin:$PATH copy/run.sh --prot 0 </dev/null >stdout.log 2>stderr.log || code=$?
[ $code -eq 2 ] && [ "$(wc -l <stderr.log)" -eq 1 ] && grep -q 'did you mean --port' stderr.log || { cat stderr.log; fail "run.sh --prot"; }

# stops PATTERN LAST COMMAND...: a run that fails is said, and the last that was asked for is it.
stops() {
  local pattern=$1 last=$2 code=0
  shift 2
  rm -rf asked out
  "$@" >stdout.log 2>stderr.log || code=$?
  [ "$code" -ne 0 ] && grep -q "^error: $pattern" stderr.log || { cat stderr.log; fail "code $code, no '$pattern': $*"; }
  tail -1 asked | grep -qE "^$last " || { cat asked; fail "went on after a failure: $*"; }
}
export WELS_SEEDS=1
FAILS='^sft' stops 'no such luck' sft "$here/recipes/r1_zero.sh"
FAILS='^rl' stops 'no such luck' rl "$here/recipes/r1_zero.sh"
FAILS='^eval' stops 'no such luck' eval "$here/recipes/r1_zero.sh"
FAILS='^eval' stops 'no such luck' eval "$here/recipes/distill_against_rl.sh"
# A policy that collapses is measured.
FAILS='^rl' SAYS='training: step 9: it collapsed' "$here/recipes/r1_zero.sh" >stdout.log 2>stderr.log || fail "a collapse"
grep -q '^seed-1 R1-Zero: greedy' stdout.log && grep -q 'step 9' stderr.log || { cat stdout.log stderr.log; fail "a collapse is not measured"; }

# Seeds of two digits are in the report too.
rm -f asked
WELS_SEEDS="9 10" WELS_STEPS=1 "$here/recipes/compare.sh" base dense
for run in base-9 base-10 dense-9 dense-10; do tail -1 asked | grep -qE "^report .*out/$run " || fail "no $run in the report"; done
echo "recipes: refuse what they do not know, and say what failed"
