#!/usr/bin/env bash
# Bad input ends with one line on stderr that names the place, exit code 2, and nothing lost.
. "$(dirname "$0")/common.sh"
cd "$scratch"
seq 1 60000 | sed 's/$/ is a number of no importance/' > text.txt
small=(--preset nano --seq 64 --batch-tokens 512 --micro-batch 512 --vocab 400 --steps 3 --sample-every 0)
long=("${small[@]/#3/2000}")

# expect PATTERN COMMAND...: exit code 2 and one line on stderr that matches.
expect() {
  local pattern=$1 code=0
  shift
  "$@" >stdout.log 2>stderr.log || code=$?
  [ "$code" -eq 2 ] || { cat stderr.log; fail "exit code $code instead of 2: $*"; }
  grep -E "^error: " stderr.log | grep -qE "$pattern" || { cat stderr.log; fail "no error line with '$pattern': $*"; }
  [ "$(grep -c '^error: ' stderr.log)" -eq 1 ] || fail "more than one error line: $*"
}

expect 'no such file or folder' "$wels" pretrain missing.txt --out a
: > empty.txt
expect 'no text' "$wels" pretrain empty.txt --out b
printf '{"text": "fine"}\n{"text": broken\n' > bad.jsonl
expect 'bad.jsonl:2' "$wels" pretrain bad.jsonl --out c
gzip -c text.txt > whole.gz
head -c 3000 whole.gz > broken.txt.gz
expect 'broken.txt.gz' "$wels" pretrain broken.txt.gz --out d
expect 'unknown preset' "$wels" pretrain text.txt --out e --preset giant
expect 'cannot|Permission|Read-only|directory' "$wels" pretrain text.txt --out /proc/nowhere
expect 'memory.*needs' "$wels" pretrain text.txt --out f --preset base --micro-batch 200000000 --batch-tokens 200000000
expect 'beyond the model' "$wels" pretrain text.txt --out g --preset nano --seq 100000

"$wels" pretrain text.txt --out run "${small[@]}" >/dev/null 2>&1 || fail "a good run failed"
checkpoint=$(ls -d run/checkpoints/step-*)
sed 's/"num_attention_heads": *[0-9]*/"num_attention_heads": 0/' "$checkpoint/config.json" > bad_config.json
expect 'num_attention_heads' "$wels" pretrain text.txt --out h --config bad_config.json
sed 's/DeepseekV3ForCausalLM/MambaForCausalLM/' "$checkpoint/config.json" > other_config.json
expect 'MambaForCausalLM' "$wels" pretrain text.txt --out i --config other_config.json
expect 'was started with lr' "$wels" pretrain text.txt --out run "${small[@]}" --lr 0.5

# A truncated and a foreign checkpoint; the other files stay as they are.
cp -r "$checkpoint" broken
head -c 100000 "$checkpoint/model.safetensors" > broken/model.safetensors
expect 'model.safetensors' "$wels" generate broken hello
cp "$checkpoint/model.safetensors" broken/model.safetensors
sed -i 's/"hidden_size": *[0-9]*/"hidden_size": 256/' broken/config.json
expect 'shape' "$wels" generate broken hello
expect 'neither a model folder|does not exist' "$wels" generate nothing hello
head -c 50000 "$checkpoint/trainer.safetensors" > run/t && mv run/t "$checkpoint/trainer.safetensors"
expect "trainer.safetensors" "$wels" pretrain text.txt --out run "${small[@]}"

code=0; "$wels" generate --no-such-flag >/dev/null 2>&1 || code=$?
[ "$code" -eq 2 ] || fail "unknown flags exit with $code"

# Two runs on one folder.
"$wels" pretrain text.txt --out two "${long[@]}" >/dev/null 2>&1 & first=$!
for _ in $(seq 100); do [ -f two/.lock ] && break; sleep 0.1; done
sleep 0.3
expect 'another run holds' "$wels" pretrain text.txt --out two "${long[@]}"
kill -9 "$first"; wait "$first" 2>/dev/null || true
echo "bad input: all as expected"
