#!/usr/bin/env bash
# Bad input ends with one line on stderr that names the place, exit code 2, and nothing lost. What needs root to be tried (mounts)
# or must not be root (permissions) says so where it is left out.
. "$(dirname "$0")/common.sh"
cd "$scratch"
seq 1 60000 | sed 's/$/ is a number of no importance/' > text.txt
small=(--preset nano --seq 64 --batch-tokens 512 --micro-batch 512 --vocab 400 --steps 3 --sample-every 0)
long=("${small[@]/#3/2000}")
mounted=()
trap 'for m in "${mounted[@]}"; do umount "$m"; done; rm -rf "$scratch"' EXIT

# expect PATTERN COMMAND...: exit code 2 and one line on stderr that matches.
expect() {
  local pattern=$1 code=0
  shift
  "$@" >stdout.log 2>stderr.log || code=$?
  [ "$code" -eq 2 ] || { cat stderr.log; fail "exit code $code instead of 2: $*"; }
  grep -E "^error: " stderr.log | grep -qE "$pattern" || { cat stderr.log; fail "no error line with '$pattern': $*"; }
  [ "$(grep -c '^error: ' stderr.log)" -eq 1 ] || fail "more than one error line: $*"
}
pretrain() { "$wels" pretrain "$@"; }

# --- Corpora.
expect 'missing.txt: no such file or folder' pretrain missing.txt --out a
: > empty.txt
expect 'empty.txt: holds no text' pretrain empty.txt --out a
mkdir -p nothing pictures
expect 'nothing: holds no text file; give .txt' pretrain nothing --out a
printf 'P6 1 1 255 abc' > pictures/a.png
expect 'pictures: holds no text file; give .txt' pretrain pictures --out a
printf 'b\0in\0ary' > pictures/b.txt
expect 'b.txt: is binary, or not UTF-8; convert' pretrain pictures --out a
printf 'x' > short.txt
expect 'short.txt: too little text' pretrain short.txt --out a
head -c 300 text.txt > few.txt
expect 'training tokens are too few for sequences of 64; give more text' pretrain few.txt --out a "${small[@]}"
printf '{"text": "fine"}\n{"text": broken\n' > bad.jsonl
expect 'bad.jsonl:2: ' pretrain bad.jsonl --out a
printf '{"text": "fine"}\n\n{"body": "no text"}\n' > bad.jsonl
expect 'bad.jsonl:3: the object has none of "text"' pretrain bad.jsonl --out a
gzip -c text.txt > whole.gz
head -c 3000 whole.gz > broken.txt.gz
expect 'broken.txt.gz: truncated after 3000 bytes; the file is damaged' pretrain text.txt broken.txt.gz --out a
if command -v zstd >/dev/null; then
  zstd -qc text.txt > whole.zst
  head -c 3000 whole.zst > broken.txt.zst
  expect 'broken.txt.zst: truncated after 3000 bytes; the file is damaged' pretrain text.txt broken.txt.zst --out a
else
  echo "left out: a truncated .zst, no zstd here"
fi
cp text.txt secret.txt && chmod 000 secret.txt
if [ "$(id -u)" -ne 0 ]; then
  expect 'secret.txt: cannot read the corpus: no permission' pretrain secret.txt --out a
else
  echo "left out: an unreadable file, root reads everything"
fi

# --- Output that is lost; a pipe whose reader has enough is none.
if [ -w /dev/full ]; then
  full() { "$@" >/dev/full; }
  for command in "tasks parity:20 --count 5" "tasks parity:20 --count 20000" --help --version "help pretrain" man; do
    # shellcheck disable=SC2086
    expect '^error: stdout: cannot write the output' full "$wels" $command
  done
else
  echo "left out: a full disk, no /dev/full here"
fi
"$wels" tasks parity:20 --count 20000 2>stderr.log | head -1 >stdout.log || true
[ ! -s stderr.log ] || { cat stderr.log; fail "a closed pipe"; }
# --- Of a flag given twice the last counts.
"$wels" tasks parity:20 --seed 1 --seed 2 >twice
"$wels" tasks parity:20 --seed 2 >once
cmp twice once || fail "a flag given twice"
expect '.--count: ' "$wels" tasks parity:20 --count 3 --count x

# --- Flags, config, memory.
expect 'unknown preset' pretrain text.txt --out a --preset giant
expect '.--preset: does not go with --depth: both choose the shape; give one of them' pretrain text.txt --out a --preset nano --depth 4
expect '.--depth: does not go with --config' pretrain text.txt --out a --depth 4 --config text.txt
expect '.--decay-end: 0.05 is before --stable 0.1' pretrain text.txt --out a --vocab 400 --decay-end 0.05
expect '.--vocab: says how many tokens bpe learns' pretrain text.txt --out a --vocab 400 --tokenizer char
expect 'beyond the model' pretrain text.txt --out a --preset nano --seq 100000
expect 'vocab_size: 200 is less than.*use at least' pretrain text.txt --out a --vocab 200
expect 'the tokenizer has no fill-in-the-middle tokens; use one with' pretrain text.txt --out a --tokenizer char --fim 0.1
expect '.--sample-prompt: .*É' pretrain text.txt --out a --tokenizer char --sample-prompt 'Él dijo' "${small[@]:0:8}"
expect '.--sample-prompt: 5[0-9]{3} tokens do not fit into the model.s 4096 positions; shorten it' \
  pretrain text.txt --out a --tokenizer char --sample-prompt "$(head -c 5000 text.txt)"
expect 'memory: training needs .* are free: .* are missing; use --micro-batch [0-9]' \
  pretrain text.txt --out a --preset base --vocab 400 --micro-batch 200000000 --batch-tokens 200000000
expect 'memory: training needs .* are missing; use a smaller --preset, --depth, --vocab or --seq' pretrain text.txt --out a --depth 32 --vocab 400 --experts 1024
expect 'memory: a step of 9000000000000000000 tokens.*use a smaller --batch-tokens' \
  pretrain text.txt --out a --vocab 400 --batch-tokens 9000000000000000000
# flag PATTERN COMMAND...: as expect, and not a word more.
flag() {
  expect "$@"
  [ "$(wc -l <stderr.log)" -eq 1 ] || { cat stderr.log; fail "more than one line: $*"; }
  [ "$(wc -c <stderr.log)" -lt 400 ] || { cat stderr.log; fail "a long line: $*"; }
}
for command in pretrain sft rl r1 adapt distill dpo merge colearn generate chat serve keys eval info export quantize report bench tasks; do
  flag 'no-such-flag|required' "$wels" "$command" --no-such-flag
done
flag "wels: unknown command 'foo'; use one of pretrain, sft" "$wels" foo
flag "unknown command 'generat'; did you mean generate\?" "$wels" generat run x
flag "unknown command 'foo'" "$wels" help foo
flag 'wels: needs a command; use one of pretrain' "$wels"
flag 'wels bench: needs a command; use one of train, infer' "$wels" bench
flag 'there is no flag --max-token; did you mean --max-tokens' "$wels" generate run x --max-token 3
flag '"y" is one argument too many; see wels generate --help' "$wels" generate run x y
flag 'max-tokens: 0 is out of range; use more than 0' "$wels" generate run x -n 0
flag 'max-tokens: "1x" is no number that fits; use more than 0' "$wels" generate run x -n 1x
flag 'top-k: "1.5" is no whole number that fits' "$wels" generate run x --top-k 1.5
flag 'samples: 1.5 is no whole number; use 1 to 1024' "$wels" generate run x --samples 1.5
flag 'samples: 2000 is out of range; use 1 to 1024' "$wels" generate run x --samples 2000
flag 'temperature: nan is no finite number' "$wels" generate run x --temperature nan
flag 'frequency_penalty|frequency-penalty: inf is no finite' "$wels" generate run x --frequency-penalty inf
flag 'logit-bias: "7" is no ID=BIAS' "$wels" generate run x --logit-bias 7
flag 'dtype: there is no "f64"; use auto, bf16, f32' "$wels" generate run x --dtype f64
flag 'speculate: there is no "luck"; use mtp, ngram, none' "$wels" generate run x --speculate luck
flag 'device: "foo" is not an instruction set that this CPU has' "$wels" generate run x --device cpu:foo
flag 'does not go with' "$wels" generate run x --json --grammar g
flag 'lr: "abc" is no number that fits' pretrain text.txt --out a --lr abc
flag 'lr: nan is' pretrain text.txt --out a --lr nan
flag 'weight-decay: inf is out of range; use 0 or more' pretrain text.txt --out a --weight-decay inf
flag 'warmup: -5 is out of range; use 0 or more' pretrain text.txt --out a --warmup -5
flag 'seed: -1 is out of range; use 0 or more' pretrain text.txt --out a --seed -1
flag 'fim: 2 is out of range; use 0 to 0.9' pretrain text.txt --fim 2
flag '.--vocab: 4294967808 is out of range; use 0 to 2147483647' pretrain text.txt --out a --vocab 4294967808
flag '.--minutes: 1e300 is out of range; use 0 to 1000000' pretrain text.txt --out a --minutes 1e300
"$wels" help bench infer >help.log && "$wels" bench infer --help | cmp - help.log || fail "wels help bench infer is not its --help"
"$wels" help >help.log && grep -q 'continue a text' help.log || fail "wels help lists no commands"

printf '{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 400, "hidden_size": 64, "num_hidden_layers": 2,
  "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}' > gqa.json
pretrain text.txt --out gqa --config gqa.json "${small[@]:2}" --qk-clip 50 >/dev/null 2>stderr.log || fail "a model with grouped queries"
grep -q 'warning: --qk-clip: does nothing here' stderr.log || { cat stderr.log; fail "--qk-clip without MLA"; }
for flag in '--experts 0' --dense; do
  pretrain text.txt --out "dense$flag" "${small[@]}" $flag >/dev/null 2>stderr.log || { cat stderr.log; fail "pretrain $flag"; }
done
cmp dense*/checkpoints/*/config.json || fail "--experts 0 is not the --dense model"
grep -A1 '"shape"' gqa/run.json | grep -q -- '--config gqa.json' || fail "run.json names another shape"
head -c 20000 text.txt > some.txt
pretrain some.txt --out brief "${small[@]}" --split hash --split-share 0.001 >/dev/null 2>stderr.log || fail "a run with little to validate on"
grep -qE 'warning: validation has [0-9]+ tokens, fewer than one sequence of 64; ' stderr.log || { cat stderr.log; fail "too little to validate on"; }
pretrain text.txt --out run "${small[@]}" >/dev/null 2>&1 || fail "a good run failed"
checkpoint=$(ls -d run/checkpoints/step-*)
# config FIELD VALUE PATTERN: that field of a good config is refused.
config() {
  sed -E "s/\"$1\": *[^,]*/\"$1\": $2/" "$checkpoint/config.json" > bad_config.json
  cmp -s bad_config.json "$checkpoint/config.json" && fail "config.json has no $1"
  expect "bad_config.json: $3" pretrain text.txt --out a --vocab 400 --config bad_config.json
}
config num_attention_heads 0 'num_attention_heads is 0; it must be between'
config num_key_value_heads 3 'num_key_value_heads 3 differs.*set num_key_value_heads to 4'
config qk_rope_head_dim 15 'qk_rope_head_dim 15 is odd.*use 14 or 16'
config num_experts_per_tok 9 'num_experts_per_tok is 9; it must be between 1 and 8'
config hidden_size '"wide"' 'hidden_size'
config vocab_size 300 'vocab_size 300 is smaller than the tokenizer.s 400; raise vocab_size'
sed 's/DeepseekV3ForCausalLM/MambaForCausalLM/' "$checkpoint/config.json" > bad_config.json
expect 'MambaForCausalLM' pretrain text.txt --out a --config bad_config.json
[ -z "$(ls a/checkpoints 2>/dev/null)" ] || fail "bad input left a checkpoint"

# --- A run that goes on with something else.
expect 'run: was started with lr' pretrain text.txt --out run "${small[@]}" --lr 0.5
expect 'run: was started with the tokenizer bpe 400, not bpe 500; give the same' pretrain text.txt --out run "${small[@]/#400/500}"
expect 'run: was started with the tokenizer bpe 400, not char' pretrain text.txt --out run "${small[@]/#400/0}" --tokenizer char
expect 'run: was started with document_mask false, not true' pretrain text.txt --out run "${small[@]}" --document-mask
expect 'run: was started with num_experts_per_tok 2, not 3' pretrain text.txt --out run "${small[@]}" --experts-per-token 3
expect 'corpus: it, or how it is split.*is not what this run was started with' pretrain text.txt bad_config.json --out run "${small[@]}"
expect 'corpus: it, or how it is split.*is not what this run was started with' pretrain text.txt --out run "${small[@]}" --fim 0.1
pretrain text.txt --out other "${small[@]/#400/500}" >/dev/null 2>&1 || fail "a good run failed"
cp other/tokenizer.json run/tokenizer.json
expect 'run/tokenizer.json: is not the tokenizer this run.*put it back: cp' pretrain text.txt --out run "${small[@]}"
$(sed -n 's/.*put it back: //p' stderr.log)
pretrain text.txt --out run "${small[@]}" >/dev/null 2>&1 || fail "the tokenizer put back as told is not accepted"

# --- Prompts. Flags that may be repeated leave what follows them to the positional arguments.
generate() { "$wels" generate "$@"; }
generate --stop END run hello -n 3 -q >stdout.log 2>stderr.log || { cat stderr.log; fail "--stop takes the model for a stop string"; }
broken_prompt=$(printf 'one\ntwo \xe4')
expect 'prompt: is no UTF-8: byte 9 \(0xe4\) in line 2; convert it' generate run "$broken_prompt"
[ ! -s stdout.log ] || fail "a broken prompt is echoed"
expect 'question: is no UTF-8: byte 9' "$wels" chat run "$broken_prompt"
seq 3000 | tr '\n' ' ' > long_prompt.txt
expect 'prompt: [0-9]+ tokens do not fit into a context' generate run - <long_prompt.txt
[ ! -s stdout.log ] || fail "a prompt that does not fit is echoed"
generate run hello -n 9999999999999 --stop e -q >stdout.log 2>stderr.log || { cat stderr.log; fail "-n is not clipped to the context"; }
expect 'logit-bias: the model has no token 400; its last one is 399' generate run hello --logit-bias 400=1
# A token that always wins becomes one of those that end a text.
rm -rf ends; cp -r "$checkpoint" ends
sed -i 's/"eos_token_id": *[0-9]*/"eos_token_id": [0, 65]/' ends/config.json
grep -q '0, 65' ends/config.json || fail "config.json has no eos_token_id"
generate ends hello -n 5 -q --logit-bias 65=100 >stdout.log 2>/dev/null || fail "two ends of a text"
[ "$(tr -d '\n' <stdout.log)" = "" ] || { cat stdout.log; fail "generate goes on after the second eos_token_id"; }
generate run hello -n 5 -q --logit-bias 65=100 --logprobs 2 >stdout.log 2>stderr.log
[ "$(tr -d '\n' <stdout.log)" != "" ] || fail "no token wins by its bias"
[ "$(grep -cE '^".*" -[0-9.]+   of ".*" -[0-9.]+, ".*" -[0-9.]+$' stderr.log)" -eq 5 ] || { cat stderr.log; fail "--logprobs lists no 5 tokens"; }

# --- Damaged and foreign checkpoints. broken/ is a copy; each case starts from the good files.
broken() { rm -rf broken; cp -r "$checkpoint" broken; }
weights=broken/model.safetensors
patch() { printf "$2" | dd of="$1" bs=1 seek="$3" conv=notrunc status=none; }
size=$(stat -c %s "$checkpoint/model.safetensors")
broken; head -c 100000 "$checkpoint/model.safetensors" > $weights
expect "$weights: .*truncated or damaged; copy it again" "$wels" generate broken hello
broken; head -c 5 "$checkpoint/model.safetensors" > $weights
expect "$weights: 5 bytes are too few" "$wels" generate broken hello
broken; sed -i 's/"hidden_size": *[0-9]*/"hidden_size": 256/' broken/config.json
expect 'shape .*config.json asks for.*use the config.json of this checkpoint' "$wels" generate broken hello
broken; LC_ALL=C sed -i '1s/"F32"/"I32"/' $weights
expect 'tensor .* is i32; weights must be floating point' "$wels" generate broken hello
# The first norm's gain follows the header and the embedding of 400 tokens of 128 floats, q_a_proj the norm.
norm=$((8 + $(od -An -tu8 -N8 $weights) + 400 * 128 * 4))
broken; patch $weights '\x00\x00\xc0\x7f' $norm
expect 'tensor model.layers.0.input_layernorm.weight: value .0, 0. is not finite; the checkpoint is damaged' "$wels" generate broken hello
broken; patch $weights '\x00\x00\xc0\x7f' $((norm + 128 * 4))
expect 'no logit is finite; the model.s weights are damaged' "$wels" generate broken hello
expect 'broken: gives log-probabilities that are not finite; the weights are damaged' "$wels" eval broken few.txt
expect 'expert-memory: ref keeps no experts of its own; use --device cpu' "$wels" generate run hello --expert-memory 1 --device ref
expect 'text.txt/cache: cannot make the folder: Not a directory' "$wels" generate run hello --cache-dir text.txt/cache
for flags in '--kv-cache q3' '--cache-gb 1' '--cache-dir c --cache-gb -1' '--expert-memory -1'; do
  code=0; "$wels" generate run hello $flags >stdout.log 2>stderr.log || code=$?
  [ "$code" -eq 2 ] && grep -qE -- "${flags%% *}|cache-dir|cache-gb" stderr.log || { cat stderr.log; fail "generate $flags ends with $code"; }
done
expect 'kv-cache: compares the model with another; name that one with --reference' "$wels" eval run few.txt --kv-cache q8
for flags in --kl --perplexity; do
  expect 'broken: gives log-probabilities that are not finite; the weights are damaged' "$wels" eval broken few.txt --reference run $flags
done
expect 'kl: compares the model with another; name that one with --reference' "$wels" eval run few.txt --kl
expect 'nothing: is neither a model folder' "$wels" eval run few.txt --reference nothing
expect 'run/checkpoints/[^:]*: predicts 400 tokens, other/checkpoints/[^ ]* 500; give two versions' "$wels" eval run few.txt --reference other
expect '.--seq: 9999 is beyond the model.s 4096 positions' "$wels" eval run few.txt --seq 9999
# Two tokens change places.
broken; sed -E 's/"0": *([0-9]+)/"1"@\1/; s/"1": *([0-9]+)/"0": \1/; s/"1"@([0-9]+)/"1": \1/' "$checkpoint/tokenizer.json" > broken/tokenizer.json
expect 'broken: has another tokenizer than .*: token [0-9]+ is "1" and "0"; give two versions' "$wels" eval broken few.txt --reference run
"$wels" generate broken hello -n 2 >stdout.log 2>stderr.log || fail "generate with another tokenizer of the same size"
grep -q 'warning: broken/tokenizer.json: is not the one that the model was trained with (400 tokens, 400 rows)' stderr.log || { cat stderr.log; fail "another tokenizer"; }
broken; sed -i 's/<｜Assistant｜>/<｜assistant｜>/' broken/tokenizer.json
for command in 'chat broken hello' 'serve broken --port 0' 'serve run broken --port 0'; do
  expect 'broken: has no token <｜Assistant｜>, which the chat template needs' "$wels" $command --template deepseek-v3.1
done
broken; cp other/tokenizer.json broken/
expect 'broken/tokenizer.json: has 500 tokens, the model.s embedding 400; use the tokenizer' "$wels" generate broken hello
expect 'neither a model folder|does not exist' "$wels" generate nothing hello
# safetensors HEADER BYTES: a file of that header and so many bytes of zeros in place of the weights.
safetensors() {
  broken
  { printf "\\x$(printf %02x ${#1})\0\0\0\0\0\0\0%s" "$1"; head -c "$2" /dev/zero; } > $weights
}
safetensors '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}' 12
expect "$weights: tensor b \[4, 12\] overlaps tensor a \[0, 8\]; the file is damaged" "$wels" info broken
safetensors '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[9],"data_offsets":[8,44]}}' 12
expect "$weights: tensor b: its data ends at offset 44, the file has 12 bytes" "$wels" info broken
safetensors '{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}' 8
expect "$weights: tensor a: data_offsets \[8, 0\] run backwards" "$wels" info broken

# The same in a run: resuming refuses, says what to remove, and touches nothing.
rm -rf backup; cp -r "$checkpoint" backup
restore() { rm -rf "$checkpoint"; cp -r backup "$checkpoint"; }
resume() { expect "$1" pretrain text.txt --out run "${small[@]}"; restore; }
patch "$checkpoint/model.safetensors" '\x00\x00\xc0\x7f' $((size - 4))
resume 'step-00000003: tensor .*is not finite; remove run/checkpoints/step-00000003 to continue from the start'
patch "$checkpoint/trainer.safetensors" '\x00\x00\x80\x7f' $(($(stat -c %s "$checkpoint/trainer.safetensors") - 4))
resume 'trainer.safetensors: tensor .*is not finite; remove run/checkpoints/step-00000003'
head -c 50000 backup/trainer.safetensors > "$checkpoint/trainer.safetensors"
resume 'trainer.safetensors: .*; remove run/checkpoints/step-00000003'
sed -i 's/"version": 1/"version": 7/' "$checkpoint/trainer.json"
resume 'trainer.json: is of version 7, this program reads 1'
head -c 200 backup/trainer.json > "$checkpoint/trainer.json"
resume 'trainer.json: .*; remove run/checkpoints/step-00000003'
mkdir run/checkpoints/step-
resume 'run/checkpoints/step-: is called like a checkpoint, but of no step; remove it'
rmdir run/checkpoints/step-
sed -i 's/"sequences": [0-9]*/"sequences": -7/' "$checkpoint/trainer.json"
resume 'trainer.json: "sequences" is -7; remove run/checkpoints/step-00000003'
head -c 200 backup/config.json > "$checkpoint/config.json"
resume 'config.json: .*; remove run/checkpoints/step-00000003'
pretrain text.txt --out run "${small[@]}" >/dev/null 2>&1 || fail "the checkpoint put back is not accepted"

# --- Runs that diverge.
expect 'training: .*not finite; no checkpoint is from before.*; start again with a lower --lr in another --out' \
  pretrain text.txt --out wild "${small[@]}" --lr 1e39 --warmup 0
[ -z "$(ls wild/checkpoints)" ] || fail "a diverged model is saved"
grep -q '"status": *"failed: training: ' wild/run.json || { cat wild/run.json; fail "run.json of a diverged run"; }
expect 'not finite; the last good checkpoint is wilder/checkpoints/step-' \
  pretrain text.txt --out wilder "${small[@]/#3/40}" --lr 1e10 --warmup 1000000000 --clip 0 --save-every 1 --keep 2
"$wels" generate "$(sed -n 's/.*the last good checkpoint is \([^;]*\);.*/\1/p' stderr.log)" hello -n 3 -q >/dev/null 2>&1 ||
  fail "the last good checkpoint does not load"
expect '.--eps: 1e-60 is 0 in 32 bits; use 1e-30 or more' pretrain text.txt --out a "${small[@]}" --eps 1e-60

# --- Folders that cannot be written.
expect 'cannot|Permission|Read-only|directory' pretrain text.txt --out /proc/nowhere
printf 'file' > plain
expect 'plain: cannot make the folder.*' pretrain text.txt --out plain
mkdir -p readonly full
if mount -t tmpfs -o ro,size=1m none readonly 2>/dev/null; then
  mounted+=("$scratch/readonly")
  expect 'readonly: cannot write to the folder: Read-only file system; choose a folder' pretrain text.txt --out readonly
elif [ "$(id -u)" -ne 0 ]; then
  chmod 555 readonly
  expect 'readonly: cannot write to the folder: Permission denied; choose a folder' pretrain text.txt --out readonly
else
  echo "left out: a read-only folder, root without the right to mount"
fi

# A disk that is full in the middle of a run (or, where nothing can be mounted, a limit on the size of files): the last checkpoint
# stays and loads; with room the same command goes on.
few=("${small[@]/#3/40}" --save-every 10 --keep 1)
if mount -t tmpfs -o size=40m none full 2>/dev/null; then
  mounted+=("$scratch/full")
  expect 'No space left on device; free some space' pretrain text.txt --out full/run "${few[@]}"
  room() { mount -o remount,size=400m full; }
else
  echo "no mounts here: a limit on the size of files stands for the full disk"
  "$wels" pretrain text.txt --out full/run "${few[@]}" >/dev/null 2>&1 & first=$!
  for _ in $(seq 600); do ls full/run/checkpoints/step-* >/dev/null 2>&1 && break; sleep 0.05; done
  kill -INT "$first"; wait "$first" && fail "the run was over before the disk was full" || true
  limited() { (trap '' XFSZ; ulimit -f 9000; pretrain text.txt --out full/run "${few[@]}"); }
  expect 'File too large' limited
  room() { :; }
fi
kept=$(ls -d full/run/checkpoints/step-*)
[ ! -e full/run/checkpoints/tmp ] || fail "a part of a checkpoint stays on the full disk"
"$wels" generate full/run hello -n 5 >/dev/null 2>stderr.log || { cat stderr.log; fail "$kept does not load"; }
room
pretrain text.txt --out full/run "${few[@]}" >stdout.log 2>stderr.log || { cat stderr.log; fail "no going on with room"; }
grep -q "resuming at step" stderr.log || fail "started again instead of resuming"

# --- Text with warts is read, and what was wrong is counted.
mkdir warts
{ printf '\xef\xbb\xbf'; sed 's/$/\r/' text.txt; printf 'bad \xff\xfe bytes \xc3'; } > warts/a.txt
tr '\n' ' ' < text.txt | sed 's/ number / NUMBER /g' > warts/one_line.txt
cp pictures/b.txt warts/b.txt
cp text.txt warts/c.txt; cp text.txt warts/d.txt
pretrain warts --out warts_run "${small[@]}" >/dev/null 2>stderr.log || { cat stderr.log; fail "text with warts"; }
grep -q 'corpus: 3 files, 3 documents.*3 bytes not UTF-8, replaced; skipped 2 files (1 binary, 1 duplicate)' stderr.log ||
  { cat stderr.log; fail "warts are not counted"; }

# --- Documents: fill-in-the-middle and the mask change what is learned from them, and say so.
seq 1 300 | sed 's/.*/{"text": "Document & is short, and many of them fill one sequence."}/' > short.jsonl
"$wels" pretrain short.jsonl --out plain_run "${small[@]}" 2>/dev/null | grep -o 'validation.*' > plain.log
"$wels" pretrain short.jsonl --out mask_run "${small[@]}" --document-mask 2>/dev/null | grep -o 'validation.*' > mask.log
"$wels" pretrain short.jsonl --out fim_run "${small[@]}" --fim 0.5 2>stderr.log | grep -o 'validation.*' > fim.log
grep -qE 'fill-in-the-middle: 1[0-9][0-9] documents' stderr.log || { cat stderr.log; fail "--fim 0.5 of 300 documents"; }
! cmp -s plain.log mask.log || fail "--document-mask changes nothing"
! cmp -s plain.log fim.log || fail "--fim changes nothing"
"$wels" pretrain text.txt --out fim_none "${small[@]}" --fim 0.1 2>stderr.log >/dev/null || fail "--fim with one document"
grep -q 'warning: text.txt: --fim 0.1 rearranged no document' stderr.log || { cat stderr.log; fail "no word of --fim without effect"; }

# --- Two runs on one folder.
"$wels" pretrain text.txt --out two "${long[@]}" >/dev/null 2>&1 & first=$!
for _ in $(seq 100); do [ -f two/.lock ] && break; sleep 0.1; done
sleep 0.3
expect 'two: another run holds this folder \(process [0-9]+\); wait for it' pretrain text.txt --out two "${long[@]}"
kill -9 "$first"; wait "$first" 2>/dev/null || true
echo "bad input: all as expected"
