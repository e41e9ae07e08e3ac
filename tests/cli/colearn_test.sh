#!/usr/bin/env bash
# wels colearn: two rounds of all channels; killed inside a phase and between phases it ends with the same bits; bad input.
. "$(dirname "$0")/common.sh"
cd "$scratch"
"$wels" sft --preset nano --mtp 0 --task parity:6 --p-cot 0.5 --steps 60 --batch 64 --sample-every 0 --out large >/dev/null 2>&1
"$wels" distill --preset nano --dense --mtp 0 --teacher large --mode logits --task parity:6 --p-cot 0.5 --steps 40 --batch 64 \
  --sample-every 0 --out small >/dev/null 2>&1
colearn=(colearn large small --task parity:6 --p-cot 0.5 --rounds 2 --gflop 60 --batch 16 --pool 64 --explore 8 --explore-tries 4 \
  --max-tokens 24 --groups 4 --samples 4 --eval-items 32 --save-every 1)
"$wels" "${colearn[@]}" --out whole > out.txt 2>err.txt || { cat err.txt; fail "wels colearn"; }
[ "$(grep -cE '^ +[12] +(A|B|C-small|C-large) ' out.txt)" -eq 8 ] || { cat out.txt; fail "not four phases in both rounds"; }
grep -q '"complementarity"' whole/state.json || fail "state.json lacks a metric"

# Every phase spends its allowance, and a step more at most.
sum() { python3 -c "import json,sys; s=json.load(open('whole/state.json')); print(int(sum(p['flops'] for p in s['phases'] if p['large']==$1)/1e9))"; }
if command -v python3 >/dev/null; then
  [ "$(sum True)" -ge 120 ] && [ "$(sum False)" -ge 120 ] || fail "an allowance of 2 rounds x 60 GFLOP was not spent"
fi

# Killed again and again, within a phase each time.
next_phase() { grep -oE '"next": [0-9]+' killed/state.json 2>/dev/null | grep -oE '[0-9]+' || echo 0; }
for phase in 1 3 5; do
  "$wels" "${colearn[@]}" --out killed >/dev/null 2>&1 & pid=$!
  for _ in $(seq 6000); do [ "$(next_phase)" -ge "$phase" ] && break; sleep 0.02; done
  sleep 0.2
  kill -9 "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
done
[ "$(next_phase)" -lt 8 ] || fail "the run was over before it could be killed"
"$wels" "${colearn[@]}" --out killed > again.txt 2>&1 || { cat again.txt; fail "resume"; }
[ "$(sed 's/whole//; s/,//' whole/state.json | grep -vE 'seconds|round-')" = \
  "$(sed 's/killed//; s/,//' killed/state.json | grep -vE 'seconds|round-')" ] || fail "killed and resumed: another state"

grep -q 'gflop' err.txt && { cat err.txt; fail "a warning where the allowance is enough"; }
# An allowance that a step is more than.
"$wels" "${colearn[@]}" --rounds 1 --gflop 0.1 --channels none --out little >/dev/null 2>err.txt || { cat err.txt; fail "a small allowance"; }
grep -qE '^warning: --gflop 0.1: a step, .*; --gflop [0-9]+ or more' err.txt || { cat err.txt; fail "no warning of a small allowance"; }

expect() {
  local pattern=$1 code=0
  shift
  "$@" >stdout.log 2>stderr.log || code=$?
  [ "$code" -eq 2 ] || { cat stderr.log; fail "exit code $code instead of 2: $*"; }
  grep -qE "$pattern" stderr.log || { cat stderr.log; fail "no error line with '$pattern': $*"; }
}
expect 'there is no channel "D"' "$wels" colearn large small --task parity:6 --channels A,D --out a
expect 'has fewer active parameters than' "$wels" colearn small large --task parity:6 --out a
expect 'whole: was started with .*, not ' "$wels" "${colearn[@]}" --seed 9 --out whole
cp -r small/checkpoints/step-00000040 other && printf '<｜User｜><｜Assistant｜></think>' > other/chat_template.jinja
expect 'other: has another chat template than large' "$wels" colearn large other --task parity:6 --out a
expect 'favour' "$wels" colearn large small --task parity:6 --favour 0.5 --out a
expect 'missing: does not exist' "$wels" colearn missing small --task parity:6 --out a
expect '\-\-task: is missing' "$wels" colearn large small --out a
[ ! -e a ] || fail "a refused command has left its folder"
echo "colearn: both learn, resumes to the same state, refuses bad input"
