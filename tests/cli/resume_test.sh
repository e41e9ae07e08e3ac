#!/usr/bin/env bash
# kill -9, Ctrl-C and another number of threads: the resumed run ends with the same bits as one that was never stopped.
. "$(dirname "$0")/common.sh"
need_data tinyshakespeare.txt
args=(pretrain "$data/tinyshakespeare.txt" --preset nano --tokenizer char --seq 64 --batch-tokens 1024 --micro-batch 512 --steps 40
      --ema 0.99 --save-every 10 --eval-every 20 --eval-sequences 4 --sample-every 0)
digest() { cat "$1"/checkpoints/step-00000040/{model,trainer}.safetensors | sha256sum; }

"$wels" "${args[@]}" --out "$scratch/whole" --threads 2 >/dev/null 2>&1
want=$(digest "$scratch/whole")

# Killed without warning once some checkpoint is there, resumed with one thread.
"$wels" "${args[@]}" --out "$scratch/killed" --threads 2 >/dev/null 2>&1 & pid=$!
for _ in $(seq 600); do ls "$scratch"/killed/checkpoints/step-* >/dev/null 2>&1 && break; sleep 0.05; done
kill -9 "$pid" 2>/dev/null || fail "the run was over before it could be killed"
wait "$pid" 2>/dev/null || true
"$wels" "${args[@]}" --out "$scratch/killed" --threads 1 >/dev/null 2>&1
[ "$(digest "$scratch/killed")" = "$want" ] || fail "killed and resumed with one thread: other bits"

# Ctrl-C: saves, says so by exit code 130, and goes on.
"$wels" "${args[@]}" --out "$scratch/stopped" --threads 2 >/dev/null 2>&1 & pid=$!
for _ in $(seq 600); do [ -s "$scratch/stopped/metrics.jsonl" ] && break; sleep 0.05; done
kill -INT "$pid"
code=0; wait "$pid" || code=$?
[ "$code" -eq 130 ] || fail "Ctrl-C ended with $code instead of 130"
ls "$scratch"/stopped/checkpoints/step-* >/dev/null || fail "Ctrl-C saved nothing"
[ -s "$scratch/stopped/ema/model.safetensors" ] || fail "Ctrl-C saved no average"
"$wels" "${args[@]}" --out "$scratch/stopped" --threads 2 >/dev/null 2>&1
[ "$(digest "$scratch/stopped")" = "$want" ] || fail "stopped and resumed: other bits"

# A step that would take an hour is given up within its micro-batch, with what there was before it.
huge=("${args[@]/#1024/99999999}")
"$wels" "${huge[@]}" --out "$scratch/huge" >"$scratch/out" 2>&1 & pid=$!
for _ in $(seq 1200); do [ -s "$scratch/huge/run.json" ] && break; sleep 0.05; done
[ -s "$scratch/huge/run.json" ] || { cat "$scratch/out"; fail "no run with a huge step began"; }
kill -TERM "$pid"
code=0; wait "$pid" || code=$?
[ "$code" -eq 130 ] || { cat "$scratch/out"; fail "SIGTERM within a step ended with $code instead of 130"; }
grep -q '^stopped after 0 steps' "$scratch/out" || { cat "$scratch/out"; fail "SIGTERM within a step"; }
"$wels" info "$scratch/huge" >/dev/null || fail "nothing whole is left after SIGTERM within a step"

# The average of the weights is there at every stop, and again where it was lost; a run that is over says no more than that.
rm -rf "$scratch/whole/ema"
"$wels" "${args[@]}" --out "$scratch/whole" --threads 2 >"$scratch/out" 2>"$scratch/err"
cmp "$scratch/whole/ema/model.safetensors" "$scratch/killed/ema/model.safetensors" || fail "a lost average is not built again"
grep -q '^done: 40 steps, ' "$scratch/out" || { cat "$scratch/out"; fail "a run that is over"; }
! grep -qE 'tok/s|left|resuming' "$scratch/out" "$scratch/err" || { cat "$scratch/out" "$scratch/err"; fail "a run that is over shows progress"; }

# Ctrl-C while the corpus is prepared: nothing half made stays, and the same command starts again.
for _ in $(seq 120); do cat "$data/tinyshakespeare.txt"; done > "$scratch/long.txt"
long=(pretrain "$scratch/long.txt" "${args[@]:2}" --out "$scratch/prepared")
"$wels" "${long[@]}" >"$scratch/out" 2>&1 & pid=$!
for _ in $(seq 3000); do writing "$pid" "$scratch/prepared/tokens/train.tokens" && break; sleep 0.005; done
kill -INT "$pid"
code=0; wait "$pid" || code=$?
[ "$code" -eq 130 ] || fail "Ctrl-C while preparing ended with $code instead of 130"
grep -q "stopped before training; the same command starts again" "$scratch/out" || { cat "$scratch/out"; fail "Ctrl-C while preparing"; }
[ -z "$(ls "$scratch/prepared/tokens")" ] || fail "Ctrl-C while preparing left $(ls "$scratch/prepared/tokens")"
"$wels" "${long[@]}" --threads 1 >/dev/null 2>&1 || fail "no start after Ctrl-C while preparing"

# No step is twice in the metrics.
steps=$(grep -o '"step":[0-9]*' "$scratch/killed/metrics.jsonl" | sort | uniq -d | wc -l)
[ "$steps" -eq 0 ] || fail "$steps steps are twice in metrics.jsonl"
echo "resume: the same bits"
