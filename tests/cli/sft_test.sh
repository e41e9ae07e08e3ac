#!/usr/bin/env bash
# wels sft through the whole program: a new model from tasks, a model fine-tuned on chats of every format, adapters over a plain and
# a quantised model, resuming to the same bits, and what is wrong with the input.
. "$(dirname "$0")/common.sh"
cd "$scratch"
quick=(--batch 16 --micro-batch 512 --sample-every 0 --eval-examples 32 --threads 1)
sft() { "$wels" sft "$@" "${quick[@]}"; }
good() { "$@" >stdout.log 2>stderr.log || { cat stderr.log; fail "not done: $*"; }; }
expect() {
  local pattern=$1 code=0
  shift
  "$@" >stdout.log 2>stderr.log || code=$?
  [ "$code" -eq 2 ] || { cat stderr.log; fail "exit code $code instead of 2: $*"; }
  grep -E "^error: " stderr.log | grep -qE -- "$pattern" || { cat stderr.log; fail "no error line with '$pattern': $*"; }
}
digest() { cat "$1"/checkpoints/step-*"$2"/{model,adapter_model,trainer}.safetensors 2>/dev/null | sha256sum; }
loss() { grep -o '"val_loss":[0-9.]*' "$1/metrics.jsonl" | sed -n "$2s/.*://p"; }
falls() { awk -v a="$(loss "$1" 1)" -v b="$(loss "$1" '$')" 'BEGIN { exit !(a > 0 && b < a) }' || fail "$1: loss $(loss "$1" 1) to $(loss "$1" '$')"; }

# --- A new model from a task: vocabulary, template, chat.
base=(--preset nano --task parity:4 --p-cot 0.2)
good sft "${base[@]}" --out whole --steps 30 --eval-every 10 --save-every 10
falls whole
grep -q 'held-out answers: ' stdout.log || fail "no result"
checkpoint=$(ls -d whole/checkpoints/step-*30)
[ -s "$checkpoint/chat_template.jinja" ] || fail "no chat template beside the weights"
good "$wels" chat whole "parity 0110" -n 8 --think --temperature 0
good "$wels" info whole
# Every digit is a token.
grep -q '"individual_digits"' "$checkpoint/tokenizer.json" || fail "digits are not split"

# --- Stopped and killed runs go on to the same bits.
"$wels" sft "${base[@]}" "${quick[@]}" --out killed --steps 30 --eval-every 10 --save-every 10 >/dev/null 2>&1 & pid=$!
for _ in $(seq 1200); do ls killed/checkpoints/step-* >/dev/null 2>&1 && break; sleep 0.05; done
kill -9 "$pid" 2>/dev/null || fail "the run was over before it could be killed"
wait "$pid" 2>/dev/null || true
good sft "${base[@]}" --out killed --steps 30 --eval-every 10 --save-every 10
[ "$(digest killed 30)" = "$(digest whole 30)" ] || fail "killed and resumed: other bits"
expect 'whole: was started with source' sft --preset nano --task parity:4 --p-cot 0.3 --out whole --steps 30

# --- Fine-tuning on chats, every format in one file.
for i in $(seq 40); do
  printf '{"question": "parity %d", "answer": "%d"}\n' "$i" $((i % 2))
  printf '{"instruction": "say %d", "input": "", "output": "%d"}\n' "$i" "$i"
  printf '{"conversations": [{"from": "human", "value": "odd %d?"}, {"from": "gpt", "value": "<think>%d</think>%d"}]}\n' "$i" "$i" $((i % 2))
  printf '{"messages": [{"role": "user", "content": "a %d"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d %d"}]}\n' "$i" "$i"
  printf '{"text": "plain %d"}\n' "$i"
done > chats.jsonl
gzip -k chats.jsonl
good sft whole chats.jsonl.gz --out tuned --steps 20 --eval-every 10 --held-out 0.1 --lr 1e-3
grep -q '200 examples, .* tokens, .* of them learned' stderr.log || { cat stderr.log; fail "examples are not counted"; }
falls tuned
[ "$(cat "$checkpoint/tokenizer.json" | sha256sum)" = "$(cat tuned/checkpoints/step-*/tokenizer.json | sha256sum)" ] || fail "another tokenizer"
good sft whole chats.jsonl --out short --steps 2 --seq 12 --overlong skip
grep -q 'too long, left out' stderr.log || { cat stderr.log; fail "long examples are not counted"; }

seq 40 | sed 's/^/plain /' > plain.txt
# --- Adapters: only they are trained and kept, over whole and quantised models; resumed to the same bits; merged.
good "$wels" quantize "$checkpoint" -o q8.gguf --type q8_0
for model in whole q8.gguf; do
  rm -rf lora again
  good sft "$model" chats.jsonl --lora 4 --out lora --steps 20 --eval-every 10 --save-every 10 --held-out 0.1 --lr 3e-3
  falls lora
  [ -s lora/checkpoints/step-00000020/adapter_model.safetensors ] || fail "no adapters"
  [ ! -e lora/checkpoints/step-00000020/model.safetensors ] || fail "the frozen model was written"
  cp -r lora again
  rm -r again/checkpoints/step-00000020
  good sft "$model" chats.jsonl --lora 4 --out again --steps 20 --eval-every 10 --save-every 10 --held-out 0.1 --lr 3e-3
  [ "$(digest again 20)" = "$(digest lora 20)" ] || fail "adapters over $model resumed: other bits"
  good "$wels" chat lora "say 7" -n 8 --temperature 0
  good "$wels" merge lora --out "merged_$model" --type f32
  good "$wels" chat "merged_$model" "say 7" -n 8 --temperature 0
  # The model's tokenizer where the adapters bring none.
  cp -rL lora/checkpoints/step-00000020 bare
  rm bare/tokenizer.json
  good "$wels" merge bare --out bare_merged --base "$model" --type f32
  good "$wels" chat bare_merged "say 7" -n 8 --temperature 0
  rm -r bare bare_merged
done
# A plain text too: both begin it as chats begin.
good sft whole chats.jsonl --lora 4 --out lora_whole --steps 20 --held-out 0.1 --lr 3e-3
for m in lora_whole merged_whole; do
  "$wels" eval "$m" plain.txt --dtype f32 --json 2>/dev/null | grep -o '"nats_per_token":[0-9.]*' | cut -c1-24
done | uniq | wc -l | grep -qx 1 || fail "merged adapters read a text differently"
expect 'lora/checkpoints/step-00000020: holds adapters, not a whole model; .*wels merge' "$wels" export lora --gguf x.gguf
expect 'merged_whole: is there already' "$wels" merge lora --out merged_whole
expect 'q8.gguf: is a GGUF file.*--lora' sft q8.gguf chats.jsonl --out x
expect 'the model has no x_proj to adapt; some of q_a_proj' sft whole chats.jsonl --lora 4 --lora-targets x_proj --out x
expect 'lora: was started with lora_alpha 8.0, not 16.0' sft q8.gguf chats.jsonl --lora 8 --out lora --steps 20 --held-out 0.1 --lr 3e-3
expect '--ema: averages whole models' sft whole chats.jsonl --lora 4 --ema 0.9 --out x
expect '--lora: a new model has nothing to adapt' sft "${base[@]}" --lora 4 --out x

# --- Bad input: where, what, and what to do.
expect 'there is no model to train' sft --out x
expect 'there is nothing to learn from' sft whole --out x
expect '--task: goes without data files' sft whole chats.jsonl --task parity:4 --out x
expect 'nosuch' sft --preset nano --task nosuch:4 --out x
expect 'unknown preset' sft --preset pico --task parity:4 --out x
expect "chat template: 'alpaca' is unknown; one of deepseek-v2, deepseek-v3" sft whole chats.jsonl --template alpaca --out x
expect '--seq: 5000 is not between 2 and the model.s 4096' sft whole chats.jsonl --seq 5000 --out x
expect '--seq: an example has .* tokens, at most 8' sft "${base[@]}" --seq 8 --out x
bad() { printf '{"text": "fine"}\n%s\n' "$1" > bad.jsonl; expect "bad.jsonl:2: $2" sft whole bad.jsonl --out x; }
bad '{"instruction": "x"}' 'lacks "output"'
bad '{"question": 3, "answer": "x"}' '"question" is not a text'
bad '{"messages": [{"role": "user", "content": "x"}]}' "no message is the assistant's"
bad '{"messages": [{"role": "robot", "content": "x"}, {"role": "assistant", "content": "y"}]}' "messages\\[0\\]: role 'robot' is unknown"
bad '{"conversations": [{"from": "me", "value": "x"}]}' 'conversations\[0\]: "from" is .me.'
bad '{"other": 1}' 'is in no format that wels knows; a line is'
bad '{"text": broken' ''
printf '[\n{"text": "x"}\n]\n' > array.json
expect 'array.json:1: is a JSON array.*jq -c' sft whole array.json --out x
expect 'missing.jsonl: no such file' sft whole missing.jsonl --out x
# A tokenizer without the template's tokens: named, and the way out works.
seq 1 2000 | sed 's/$/ is a number/' > text.txt
good "$wels" pretrain text.txt --out plain --preset nano --tokenizer char --seq 32 --batch-tokens 256 --micro-batch 256 --steps 2 --sample-every 0
printf '{"question": "1 is", "answer": "a number"}\n%.0s' 1 2 3 > plain.jsonl
expect 'has no chat template, and its tokenizer lacks the tokens of deepseek-v3.1; --template none' sft plain plain.jsonl --out x
expect 'tokenizer: has no token <｜begin▁of▁sentence｜>, which the chat template needs' sft plain plain.jsonl --template deepseek-v3.1 --out x
good sft plain plain.jsonl --template none --out x_plain --steps 2
echo "sft: as expected"
