#!/usr/bin/env bash
# wels dpo through the whole program: the margin between good and bad answers grows, a killed run goes on to the same bits without
# computing its reference again, and what is wrong with the input.
. "$(dirname "$0")/common.sh"
cd "$scratch"
good() { "$@" >stdout.log 2>stderr.log || { cat stderr.log; fail "not done: $*"; }; }
expect() {
  local pattern=$1 code=0
  shift
  "$@" >stdout.log 2>stderr.log || code=$?
  [ "$code" -eq 2 ] || { cat stderr.log; fail "exit code $code instead of 2: $*"; }
  grep -E "^error: " stderr.log | grep -qE -- "$pattern" || { cat stderr.log; fail "no error line with '$pattern': $*"; }
}
good "$wels" sft --preset nano --task parity:4 --out base --batch 16 --steps 10 --sample-every 0 --threads 1
for i in $(seq 60); do
  printf '{"prompt": "parity %d", "chosen": "yes", "rejected": "no, no"}\n' "$i"
  printf '{"conversations": [{"from": "human", "value": "is %d even?"}], "chosen": {"from": "gpt", "value": "<think>well</think>yes"}, "rejected": {"from": "gpt", "value": "no"}}\n' "$i"
done > pairs.jsonl
flags=(--batch 16 --micro-batch 512 --steps 30 --eval-every 10 --save-every 10 --held-out 0.1 --lr 3e-4 --sample-every 0 --threads 1)
dpo() { "$wels" dpo "$@" "${flags[@]}"; }
good dpo base pairs.jsonl --out whole
margins=$(grep -o '"val_margin":[-0-9.]*' whole/metrics.jsonl | cut -d: -f2 | tr '\n' ' ')
awk -v m="$margins" 'BEGIN { n = split(m, x, " "); exit !(n == 3 && x[1] < x[2] && x[2] < x[3] && x[3] > 0.1) }' || fail "margins: $margins"
[ -s whole/reference.safetensors ] || fail "the reference was not kept"
first=$(grep -o '"main_loss":[0-9.]*' whole/metrics.jsonl | head -1 | cut -d: -f2)
awk -v x="$first" 'BEGIN { exit !(x > 0.6930 && x < 0.6933) }' || fail "the first loss is $first, not ln 2"

# Killed, and resumed with the reference that is there.
cp -r whole again
rm -r again/checkpoints/step-*20 again/checkpoints/step-*30
cp whole/reference.safetensors before
good dpo base pairs.jsonl --out again
cmp -s before again/reference.safetensors || fail "another reference"
[ "$(cat again/checkpoints/step-*30/{model,trainer}.safetensors | sha256sum)" = "$(cat whole/checkpoints/step-*30/{model,trainer}.safetensors | sha256sum)" ] ||
  fail "resumed: other bits"
good dpo base pairs.jsonl --out adapters --lora 4
[ -s adapters/checkpoints/step-00000030/adapter_model.safetensors ] || fail "no adapters"

bad() { printf '%s\n' "$1" > bad.jsonl; expect "bad.jsonl:1: $2" dpo base bad.jsonl --out x; }
bad '{"prompt": "q", "chosen": "a"}' 'lacks "rejected"; a preference is'
bad '{"chosen": "a", "rejected": "b"}' 'lacks a prompt'
bad '{"prompt": "q", "chosen": "a", "rejected": "a"}' '"chosen" and "rejected" are the same'
bad '{"prompt": "q", "chosen": {"role": "user", "content": "a"}, "rejected": "b"}' 'chosen: does not end with an assistant message'
expect 'leaves no pair to train on; 120 are longer than 5 tokens' dpo base pairs.jsonl --seq 5 --out x
expect 'whole: was started with beta 0.1, not 0.5' dpo base pairs.jsonl --beta 0.5 --out whole
expect 'nothing: .*does not exist' dpo nothing pairs.jsonl --out x
echo "dpo: the margin grows"
