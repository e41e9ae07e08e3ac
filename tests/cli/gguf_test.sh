#!/usr/bin/env bash
# A GGUF file is a model like the folder it was made from: the same text, the same bits per byte; what is wrong with it is said.
. "$(dirname "$0")/common.sh"
cd "$scratch"
seq 1 60000 | sed 's/$/ is a number of no importance/' > text.txt
"$wels" pretrain text.txt --out run --preset nano --seq 64 --batch-tokens 512 --micro-batch 512 --vocab 400 --steps 30 \
  --sample-every 0 >/dev/null 2>log || { cat log; fail "training"; }
checkpoint=$(ls -d run/checkpoints/step-*)
cp -r "$checkpoint" model
cp run/tokenizer.json model/ 2>/dev/null || true
printf '{"chat_template": "{{ messages }}"}' > model/tokenizer_config.json
"$wels" export model --gguf m.gguf --type f32 --mtp >/dev/null || fail "export"

greedy() { "$wels" generate "$1" "12 is a" -n 40 --temperature 0 --quiet 2>/dev/null; }
folder=$(greedy model) && file=$(greedy m.gguf) || fail "generate"
[ -n "$file" ] && [ "$folder" = "$file" ] || fail "the folder writes '$folder', the file '$file'"
head -100 text.txt > few.txt
[ "$("$wels" eval model few.txt --json)" = "$("$wels" eval m.gguf few.txt --json)" ] || fail "eval differs"
"$wels" info m.gguf >log && grep -q "experts: 2 of 8 + 1 shared" log || fail "info"
"$wels" info m.gguf >log && grep -qF 'tokenizer.chat_template = {{ messages }}' log || fail "no chat template"
printf 'twelve\n/bye\n' | "$wels" chat m.gguf --template none -n 8 >/dev/null 2>log || { cat log; fail "chat"; }
"$wels" export model --gguf q.gguf --type q8_0 >/dev/null && greedy q.gguf >/dev/null || fail "q8_0"

# As a folder again: of the file the same model, of the folder half the bytes in bf16.
"$wels" export m.gguf --folder again --type f32 >/dev/null || fail "export --folder"
[ "$(greedy again)" = "$folder" ] || fail "the file as a folder writes '$(greedy again)', not '$folder'"
cmp again/chat_template.jinja <(printf '{{ messages }}') || fail "the folder has another chat template"
"$wels" export run --folder half >log || { cat log; fail "export --folder of a run"; }
[ ! -e half/trainer.json ] && [ -e half/tokenizer.json ] || fail "the folder holds the trainer's state, or no tokenizer"
"$wels" export model --folder slash/ >/dev/null 2>log && [ -e slash/config.json ] || { cat log; fail "export --folder with a slash"; }
weights() { cat "$1"/*.safetensors | wc -c; }
[ "$(weights half)" -lt $(($(weights again) * 6 / 10)) ] || fail "bf16 takes $(weights half) bytes, f32 $(weights again)"
greedy half >/dev/null || fail "the folder in bf16"

refuse() {
  local pattern=$1 code=0
  shift
  "$@" >/dev/null 2>log || code=$?
  [ "$code" -eq 2 ] && grep -qE "^error: .*$pattern" log || { cat log; fail "exit code $code, no error with '$pattern': $*"; }
}
head -c 20000 m.gguf > short.gguf
refuse 'short.gguf' "$wels" generate short.gguf hello
refuse 'does not begin with GGUF' "$wels" generate text.txt hello
for file in model.safetensors config.json; do
  refuse "model/$file: is part of the model that is read; give another name" "$wels" export model --gguf model/$file
done
greedy model >/dev/null || fail "the model is overwritten"
refuse 'half: is there already' "$wels" export model --folder half
refuse 'a folder is written in bf16 or f32' "$wels" export model --folder other --type q8_0
refuse 'wants to know what to write' "$wels" export model

# What a prompt stands behind: bos where the files name it, the end of the text before in what pretraining wrote, or nothing.
prompt_tokens() { "$wels" generate "$1" "12 is a" -n 1 2>&1 >/dev/null | sed -n 's/^\([0-9]*\) prompt tokens.*/\1/p'; }
echo '{"bos_token": null}' > model/tokenizer_config.json
plain=$(prompt_tokens model)
"$wels" export model --gguf plain.gguf >/dev/null && [ "$(prompt_tokens plain.gguf)" = "$plain" ] || fail "a file whose text has nothing before it"
echo '{"bos_token": "<｜begin▁of▁sentence｜>"}' > model/tokenizer_config.json
"$wels" export model --gguf bos.gguf >/dev/null && "$wels" info bos.gguf >log && grep -qx 'tokenizer.ggml.add_bos_token = true' log || fail "add_bos_token"
for path in model bos.gguf run m.gguf; do
  [ "$(prompt_tokens $path)" -eq $((plain + 1)) ] || fail "$path: $(prompt_tokens $path) prompt tokens, not $((plain + 1))"
done
[ "$(greedy model)" = "$("$wels" generate model '<｜begin▁of▁sentence｜>12 is a' -n 40 --temperature 0 --quiet 2>/dev/null)" ] || fail "two bos"
[ "$("$wels" eval model few.txt --json)" != "$("$wels" eval run few.txt --json)" ] || fail "eval does not begin with bos"
seq 1 9000 > long.txt
refuse 'do not fit into a context' "$wels" generate model - -n 4 <long.txt
"$wels" generate model - -n 4 --truncate-prompt <long.txt >/dev/null 2>log || { cat log; fail "--truncate-prompt"; }
grep -qE '^4[0-9]{3} prompt tokens' log || { cat log; fail "--truncate-prompt keeps as much as fits"; }

printf '{"chat_template": "a\\u001b[2Jb"}' > model/tokenizer_config.json
"$wels" export model --gguf escape.gguf >/dev/null && "$wels" info escape.gguf >log && grep -qxF 'tokenizer.chat_template = a?[2Jb' log || { cat log; fail "control characters are printed"; }

# Ends of text that only config.json names.
cp -r model odd
rm odd/tokenizer_config.json
sed -i 's/<｜end▁of▁sentence｜>/<stop>/' odd/tokenizer.json
sed -i 's/"vocab_size"/"eos_token_id": 1, "vocab_size"/; /"eos_token_id": [0-9]*,$/d' odd/config.json
"$wels" export odd --gguf odd.gguf >/dev/null && "$wels" info odd.gguf >log && grep -qx 'tokenizer.ggml.eos_token_id = 1' log || { cat log; fail "eos of config.json"; }

rm model/tokenizer.json
"$wels" export model --gguf mute.gguf >/dev/null || fail "export without tokenizer"
refuse 'mute.gguf: has no tokenizer' "$wels" generate mute.gguf hello
echo "GGUF: the same model as its folder"
