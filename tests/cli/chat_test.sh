#!/usr/bin/env bash
# wels chat through a pipe and on a terminal: turns, commands, mistakes, files, Ctrl-C, with a model of a few seconds' training.
. "$(dirname "$0")/common.sh"
cd "$scratch"
seq 1 30000 | sed 's/$/ cats sat on the mat./' > text.txt
"$wels" pretrain text.txt --out run --preset nano --seq 64 --batch-tokens 512 --micro-batch 512 --vocab 400 --steps 3 \
  --sample-every 0 >log 2>&1 || { cat log; fail "training"; }
model=$(ls -d run/checkpoints/step-*)
chat() { "$wels" chat "$@" --temperature 0 2>err; }
has() { grep -qF -- "$1" "$2" || { cat "$2"; fail "no '$1' in $2"; }; }

# A question may begin with a slash, between """ and """, and go on behind them.
printf '%s\n' '"""/show info""" too' '/save quoted.json' | chat run -n 4 >out || { cat out err; fail "a quoted slash"; }
has '"/show info too"' quoted.json

# A base model continues the text and says so once; a question of its own is the first of a conversation.
printf 'one cat\ntwo cats\n' | chat run -n 12 >base
[ "$(grep -c 'has no chat template' err)" -eq 1 ] || fail "a base model must say what it is, once"
chat run "one cat" -n 12 >one </dev/null
printf 'one cat' | chat run - -n 12 | cmp - one || fail "a question from standard input has another answer"
head -c "$(wc -c <one)" base | cmp - one || fail "the first answer of a conversation differs from the single one"

# Drafts change no letter of the text, at any temperature; a model without an MTP module says so.
for heat in 0 0.9; do
  "$wels" generate run "one cat" -n 60 --temperature $heat -q >plain
  for who in mtp ngram; do
    for drafts in 0 3; do
      "$wels" generate run "one cat" -n 60 --temperature $heat -q --speculate $who --drafts $drafts | cmp - plain ||
        fail "--speculate $who --drafts $drafts has another text"
    done
  done
done
"$wels" generate run "one cat" -n 60 --ignore-eos --speculate mtp --drafts 3 2>err >/dev/null
has 'drafts accepted' err
chat run "one cat" -n 12 --speculate ngram </dev/null | cmp - one || fail "drafts change the answer"

# A cache in 8 bits answers too; pages on disk are found by the next process, which writes the same, and a damaged file is a miss.
for type in f32 bf16 q8; do
  "$wels" generate run "one cat" -n 20 --temperature 0 --kv-cache $type -q >$type.txt 2>err || { cat err; fail "--kv-cache $type"; }
  [ -s $type.txt ] || fail "--kv-cache $type wrote nothing"
done
seq 60 | sed 's/.*/one cat sat on the mat./' | tr '\n' ' ' > long.txt
long() { "$wels" generate run - -n 20 --temperature 0 "$@" <long.txt 2>err; }
long >plain.txt
for time in first second; do
  long --cache-dir cache --cache-gb 0.5 | cmp - plain.txt || fail "another text with --cache-dir the $time time"
done
pages=$(ls cache/*.kv | wc -l)
[ "$pages" -ge 3 ] || { ls -la cache; fail "$pages pages on disk"; }
for page in cache/*.kv; do printf 'x' | dd of="$page" bs=1 seek=5000 conv=notrunc status=none; done
long --cache-dir cache | cmp - plain.txt || fail "another text from damaged pages"
[ "$(grep -c 'is damaged: its checksum differs; going on without' err)" -eq 1 ] || { cat err; fail "damaged pages are to be said once"; }
long --cache-dir cache --cache-gb 0.000001 | cmp - plain.txt || fail "another text without room on disk"
[ -z "$(ls cache)" ] || { ls -la cache; fail "the limit of --cache-gb"; }

# Some of the experts in memory: the same text.
long --expert-memory 0.0001 | cmp - plain.txt || fail "another text with few experts in memory"
grep -qE '^[0-9.]+ % of [0-9.k]+ calls of experts found them in memory$' err || { cat err; fail "no count of experts"; }
long --expert-memory 5 | cmp - plain.txt || fail "another text with all experts in memory"
grep -qx 'all experts are in memory' err || { cat err; fail "all experts"; }

# Turns of a template. The second prompt finds the first turn in the cache, and the answers are those of a new process that loads
# the same conversation.
turns=(--template deepseek-v3.1 -n 8)
printf '%s\n' '/set system Short.' 'one cat' '/save a.json' 'two cats' '/save b.json' '/bye' 'never asked' |
  chat run "${turns[@]}" --verbose >out || fail "a conversation ended with $?"
has '"content":"Short."' a.json
[ "$(grep -c '"role":"assistant"' b.json)" -eq 2 ] || { cat b.json; fail "two answers expected"; }
! grep -q 'never asked' b.json || fail "/bye did not end the conversation"
cached=$(grep -oE '[0-9]+ of them cached' err | cut -d' ' -f1 | tr '\n' ' ')
[ "${cached%% *}" = 0 ] && [ "$(echo "$cached" | cut -d' ' -f2)" -ge 10 ] || { cat err; fail "cached: $cached"; }
printf '%s\n' '/load a.json' 'two cats' '/save c.json' | chat run "${turns[@]}" >/dev/null
cmp b.json c.json || fail "the conversation from a file went on differently"
printf '%s\n' 'x' '/clear' '/save d.json' '/load a.json' '/set system' '/save e.json' | chat run "${turns[@]}" >/dev/null
[ "$(tr -d '\n ' <d.json)" = '[]' ] || { cat d.json; fail "/clear left something"; }
! grep -q system e.json || fail "/set system did not remove the system prompt"

# Several lines, stop strings, commands that show.
printf '%s\n' '"""one' 'two"""' '/save lines.json' '/set parameter stop cat' '/set think' '/show parameters' '/show template' \
  '/show info' '/show system' '/?' | chat run "${turns[@]}" >out
has '"content":"one\ntwo"' lines.json
has 'stop               "cat"' out
has '<｜Assistant｜><think>{answer}' out
has 'DeepseekV3ForCausalLM' out
has 'no system prompt' out
has '/set parameter NAME VALUE' out

# Reasoning begun by the template: shown plain in a pipe, kept in the file, cut off from the next prompt, or hidden.
printf '%s\n' 'one' '/save r.json' 'two' | chat run --template deepseek-r1-distill-llama-8b -n 6 --verbose >out
head -c 8 out | grep -q '<think>' || { cat out; fail "reasoning is not shown"; }
has '"content":"<think>\n' r.json
chat run one --template deepseek-r1-distill-llama-8b -n 6 --hide-thinking </dev/null >hidden
[ "$(cat hidden)" = "" ] || { cat hidden; fail "reasoning is not hidden"; }

chat run one -n 6 --context 2000000 --template deepseek-r1-distill-llama-8b </dev/null >/dev/null
has "warning: --context 2000000: the model's longest, " err

# Mistakes end the turn, not the conversation; the exit code tells.
printf '[{"role":"robot","content":"x"}]' > robot.json
printf '{"a":' > broken.json
code=0
printf '%s\n' '/set parameter temperature hot' '/set parameter top_p 2' '/nonsense' '/load none.json' '/load robot.json' \
  '/load broken.json' '/save no/such/folder.json' '/set think' '/set parameter num_ctx 8' "$(seq 1 100 | tr '\n' ' ')" \
  '/set parameter num_ctx 512' 'one cat' '/save after.json' '"""open' | chat run --template deepseek-v3 -n 4 >out || code=$?
[ "$code" -eq 2 ] || fail "mistakes end with $code instead of 2"
for word in '"hot"' 'top_p' '/nonsense' 'none.json' 'robot.json' 'broken.json' 'no/such/folder.json' 'no such choice' \
            'do not fit into a context of 8' 'before the closing'; do
  has "$word" err
done
[ "$(grep -c '^error: ' err)" -eq 10 ] || { cat err; fail "ten errors expected"; }
[ "$(grep -c '"role"' after.json)" -eq 2 ] || { cat after.json; fail "a question without an answer was kept"; }

# A base model has no thoughts and no questions.
for flags in '--think-budget 3' '--rephrase 2'; do
  code=0; "$wels" chat run x $flags </dev/null >out 2>err || code=$?
  [ "$code" -eq 2 ] || fail "chat $flags of a base model"
  has 'the model has no chat template' err
done
code=0; "$wels" generate run x --rephrase 2 >out 2>err || code=$?
[ "$code" -eq 2 ] && has 'the model has no chat template' err

# A long conversation goes on without its oldest turns.
for i in 1 2 3 4 5 6; do echo "question $i about cats"; done | chat run --template deepseek-v3 -n 8 --context 96 >out || fail "context"
has 'are left out' err

# Templates: by the folder, by name, and none of ours.
cp -r "$model" official
printf '{"chat_template": "<｜User｜> <｜Assistant｜><think> </think>"}' > official/tokenizer_config.json
echo '/show template' | chat official >out
has 'deepseek-r1-distill-llama-8b' out
printf '{"chat_template": "<|im_start|>"}' > official/tokenizer_config.json
code=0; chat official x </dev/null >out || code=$?
[ "$code" -eq 2 ] || fail "an unknown template must be refused"
has 'official: the chat template is none that wels knows' err
code=0; chat official x --template new </dev/null >out || code=$?
[ "$code" -eq 2 ] && has "'new' is unknown" err

# On a terminal: a prompt, an edited line, reasoning dimmed.
if command -v script >/dev/null; then
  printf 'one dog\x7f\x7f\x7fcat\n/save tty.json\n/bye\n' |
    script -qec "$wels chat run --template deepseek-r1-distill-llama-8b -n 6 --temperature 0" /dev/null >tty || fail "on a terminal"
  has '>>> ' tty
  has $'\033[2m<think>' tty
  has '"content":"one cat"' tty.json
fi

# Ctrl-C ends a single answer with 130 (one that goes on, with a letter that shows).
"$wels" chat run one -n 100000 --temperature 0 --logit-bias 65=100 >out 2>err </dev/null & pid=$!
for _ in $(seq 500); do [ -s out ] && break; sleep 0.02; done
kill -INT "$pid" 2>/dev/null || fail "the answer was over before Ctrl-C"
code=0; wait "$pid" || code=$?
[ "$code" -eq 130 ] || fail "Ctrl-C ended with $code instead of 130"
echo "chat: all as expected"
