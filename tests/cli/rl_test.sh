#!/usr/bin/env bash
# wels rl from a base to a run that chat and eval can use; kill -9, Ctrl-C and another number of threads end with the same bits;
# bad input.
. "$(dirname "$0")/common.sh"
cd "$scratch"
"$wels" sft --preset nano --task parity:6 --p-cot 0.25 --steps 60 --batch 64 --sample-every 0 --out base >/dev/null 2>&1
rl=(rl base --task parity:6 --groups 6 --samples 6 --max-tokens 24 --steps 8 --save-every 2 --eval-every 4 --eval-items 16 --lr 5e-4 --keep 9)
digest() { cat "$1"/checkpoints/step-00000008/{model,trainer}.safetensors | sha256sum; }

"$wels" "${rl[@]}" --algorithm grpo --mini-batches 2 --refresh 3 --out whole --threads 2 > out.txt 2>err.txt || { cat err.txt; fail "wels rl"; }
grep -q "greedy accuracy" out.txt || fail "no result line"
for name in reward_mean reward_std accuracy_sampled accuracy_greedy length_mean length_p95 long_share entropy kl_start kl_reference \
            groups_without_variance reflective_words maxvio logp_mismatch_max rollout_tokens_per_s train_tokens_per_s ms_rollout; do
  grep -q "\"$name\"" whole/metrics.jsonl || fail "metrics.jsonl lacks $name"
done
[ -s whole/report.html ] || fail "no report"
grep -q ' rl base --task parity:6 ' whole/run.json || { cat whole/run.json; fail "run.json does not say the command"; }
want=$(digest whole)

# Of several tasks, each one's reward and length.
"$wels" rl base --task parity:6,parity:3,addition:2 --groups 9 --samples 4 --max-tokens 24 --steps 2 --eval-every 2 --eval-items 24 --out two >/dev/null 2>err.txt ||
  { cat err.txt; fail "wels rl of two tasks"; }
for name in {reward_mean,length_mean,accuracy_greedy,length_greedy}_{parity:6,parity:3,addition}; do
  grep -q "\"$name\":[0-9.]" two/metrics.jsonl || fail "metrics.jsonl lacks $name"
done

# A checker that fails is counted and stops nothing; one that hangs does not hold up Ctrl-C; a template may be named.
"$wels" tasks parity:6 --count 30 --format jsonl --out asked.jsonl 2>/dev/null || fail "wels tasks"
"$wels" tasks parity:6 --count 30 --format jsonl --held-out --out held_out.jsonl 2>/dev/null || fail "wels tasks --held-out"
cat held_out.jsonl >> asked.jsonl
"$wels" rl base --task 'asked.jsonl@command=exit 3' --groups 2 --samples 2 --max-tokens 24 --steps 8 --eval-every 8 --eval-items 2 --save-every 9 --template deepseek-v3.1 \
  --clip-high 0.5 --refresh 3 --out unchecked >out.txt 2>err.txt || { cat err.txt; fail "a failing checker stops the run"; }
grep -q '"checker_failures":[1-9]' unchecked/metrics.jsonl || fail "metrics.jsonl lacks checker_failures"
grep -qE '^[1-9][0-9]* answers were not checked' out.txt || { cat out.txt; fail "failures of the checker are not said"; }
for flag in --clip-high --refresh; do grep -q -- "$flag.* changes nothing" err.txt || { cat err.txt; fail "$flag is not said to change nothing"; }; done
"$wels" eval base --task 'asked.jsonl@command=exit 3' --items 16 --max-tokens 24 --template deepseek-v3.1 > out.txt 2>/dev/null || fail "wels eval --template"
grep -qE '^[1-9][0-9]* answers were not checked' out.txt || { cat out.txt; fail "eval does not say failures of the checker"; }
"$wels" rl base --task 'asked.jsonl@timeout=300 command=touch hangs; sleep 300' --groups 2 --samples 2 --max-tokens 24 --steps 2 --eval-every 9 --out hanging >out.txt 2>&1 & pid=$!
for _ in $(seq 600); do [ -e hangs ] && break; sleep 0.1; done
kill -INT "$pid"
for _ in $(seq 300); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
code=0; wait "$pid" || code=$?
[ "$code" -eq 130 ] || fail "Ctrl-C while a checker hangs ended with $code instead of 130"
grep -q '^stopped after 0 steps$' out.txt || { cat out.txt; fail "figures of an evaluation that was not made"; }

rm hangs
"$wels" eval base --task 'asked.jsonl@timeout=300 command=setsid sh -c "echo \$\$ > hangs; exec sleep 300" & sleep 300' --items 2 --max-tokens 24 >out.txt 2>&1 & pid=$!
for _ in $(seq 600); do [ -s hangs ] && break; sleep 0.1; done
kill -INT "$pid"
code=0; wait "$pid" || code=$?
[ "$code" -eq 130 ] || fail "eval: Ctrl-C while a checker hangs ended with $code instead of 130"
! kill -0 "$(cat hangs)" 2>/dev/null || fail "a checker outlives eval"

# Killed without warning once a checkpoint is there, resumed with one thread; Ctrl-C.
"$wels" "${rl[@]}" --algorithm grpo --mini-batches 2 --refresh 3 --out killed --threads 2 >/dev/null 2>&1 & pid=$!
for _ in $(seq 1200); do ls killed/checkpoints/step-* >/dev/null 2>&1 && break; sleep 0.05; done
kill -9 "$pid" 2>/dev/null || fail "the run was over before it could be killed"
wait "$pid" 2>/dev/null || true
"$wels" "${rl[@]}" --algorithm grpo --mini-batches 2 --refresh 3 --out killed --threads 1 >/dev/null 2>&1
[ "$(digest killed)" = "$want" ] || fail "killed and resumed with one thread: other bits"
"$wels" "${rl[@]}" --algorithm grpo --mini-batches 2 --refresh 3 --out stopped >/dev/null 2>&1 & pid=$!
for _ in $(seq 1200); do [ -s stopped/metrics.jsonl ] && break; sleep 0.05; done
kill -INT "$pid"
code=0; wait "$pid" || code=$?
[ "$code" -eq 130 ] || fail "Ctrl-C ended with $code instead of 130"
"$wels" "${rl[@]}" --algorithm grpo --mini-batches 2 --refresh 3 --out stopped >/dev/null 2>&1
[ "$(digest stopped)" = "$want" ] || fail "stopped and resumed: other bits"

# Adapters over the model as it is stored, a folder and a quantised file: they alone are trained and kept, and killed, the run goes on to
# the same bits.
adapters=("${rl[@]:2}" --algorithm grpo --mini-batches 2 --refresh 3 --lora 4)
digest_adapters() { cat "$1"/checkpoints/step-00000008/{adapter_model,trainer}.safetensors | sha256sum; }
"$wels" quantize base -o q8.gguf --type q8_0 >/dev/null 2>&1 || fail "quantize"
for model in base q8.gguf; do
  "$wels" rl "$model" "${adapters[@]}" --out "lora_$model" --threads 2 > out.txt 2>err.txt || { cat err.txt; fail "wels rl $model --lora"; }
  grep -q "in adapters" err.txt || { cat err.txt; fail "adapters are not said"; }
  [ ! -e "lora_$model/checkpoints/step-00000008/model.safetensors" ] || fail "the frozen model was written"
  "$wels" rl "$model" "${adapters[@]}" --out "cut_$model" --threads 2 >/dev/null 2>&1 & pid=$!
  for _ in $(seq 1200); do ls "cut_$model"/checkpoints/step-* >/dev/null 2>&1 && break; sleep 0.02; done
  kill -9 "$pid" 2>/dev/null || fail "the run of adapters was over before it could be killed"
  wait "$pid" 2>/dev/null || true
  "$wels" rl "$model" "${adapters[@]}" --out "cut_$model" --threads 1 >/dev/null 2>&1
  [ "$(digest_adapters "cut_$model")" = "$(digest_adapters "lora_$model")" ] || fail "adapters over $model, killed and resumed: other bits"
  grep '"step":8' "lora_$model/metrics.jsonl" | grep -qE '"logp_mismatch_mean":(0\.00|[0-9.]+e-)' || fail "sampler and trainer differ over $model"
  "$wels" merge "lora_$model" --out "merged_$model" --type f32 >/dev/null 2>&1 || fail "wels merge of $model"
  [ -s "merged_$model/chat_template.jinja" ] || fail "the merged model has no chat template"
  "$wels" chat "merged_$model" "parity 010101" -n 4 </dev/null >/dev/null 2>&1 || fail "chat with the merged model"
done
"$wels" eval lora_q8.gguf --task parity:6 --items 16 --max-tokens 24 >/dev/null || fail "eval of adapters over a file"

# The result is a model like any other.
"$wels" chat whole "parity 010101" >/dev/null 2>&1 || fail "chat with the result"
"$wels" eval whole --task parity:6 --items 16 --samples 4 --max-tokens 24 --json --answers answers.jsonl > eval.json || fail "eval"
[ "$(grep -c '"task":"parity","question":"parity .*"greedy_score":[01].0,"sampled_right":[0-4],"greedy":".*"sampled":\[{"text":.*\],"best":"' answers.jsonl)" = 16 ] ||
  fail "eval --answers: $(head -1 answers.jsonl)"
grep -q '"pass_at_k"' eval.json || fail "eval says no pass@k"
[ "$(grep -o '"pass_at_k":[0-9.]*' eval.json | head -1 | cut -d: -f2)" = "$(grep -o '"best_of":[0-9.]*' eval.json | cut -d: -f2)" ] ||
  { cat eval.json; fail "the best of n answers is not right where one of them is"; }
# Bounded thoughts: none within a budget of 0, one wherever a minimum is asked for.
"$wels" eval base --task parity:6 --items 16 --samples 4 --max-tokens 24 --curve > curve.txt || fail "eval --curve"
[ "$(wc -l < curve.txt)" -eq 5 ] || { cat curve.txt; fail "--curve is not a head and budgets 0, 4, 8, 16"; }
grep -q 'majority' curve.txt || fail "--curve says no majority"
"$wels" eval base --task parity:6 --items 16 --vote 4 --max-tokens 24 --curve --budgets 0,12 --json > curve.json || fail "eval --curve --json"
[ "$(grep -o '"budget":' curve.json | wc -l)" -eq 2 ] || fail "not two budgets in curve.json"
"$wels" eval base --task parity:6 --items 16 --max-tokens 24 --think-budget 0 --json > none.json
grep -q '"long_share":0.0,' none.json || { cat none.json; fail "a thought within a budget of 0"; }
"$wels" eval base --task parity:6 --items 16 --max-tokens 24 --think-budget 6 --think-min 6 --json > six.json
grep -q '"long_share":1.0,' six.json || { cat six.json; fail "no thought where 6 tokens are asked for"; }

# Rephrasing: two more lines of the curve; a whole file, training questions too.
"$wels" eval base --task parity:6 --items 8 --max-tokens 24 --curve --budgets 0 --rephrase 2 > curve.txt || fail "eval --rephrase"
[ "$(grep -cE '^ *(vote|joint) 2 ' curve.txt)" -eq 2 ] || { cat curve.txt; fail "no vote and joint answer of rephrasings"; }
"$wels" tasks parity:6 --count 30 --format jsonl --out all.jsonl 2>/dev/null || fail "wels tasks"
"$wels" eval base --task all.jsonl --split all --max-tokens 24 --rephrase 1 --json > all.json || fail "eval --split all"
grep -q '"items":30,' all.json || { cat all.json; fail "not all 30 questions"; }
grep -q '"rephrase":{"count":1,"vote":{"accuracy":' all.json || { cat all.json; fail "no rephrasing in the JSON"; }
# The same bounds in generate and chat.
asked='<｜begin▁of▁sentence｜><｜User｜>0 1 1<｜Assistant｜><think>'
[ "$("$wels" generate base "$asked" --think-budget 0 -n 8 -q | head -c 8)" = '</think>' ] || fail "generate --think-budget 0"
"$wels" generate base "$asked" --think-min 5 --think-again 1 -n 4 -q > least.txt
! grep -q '</think>' least.txt || { cat least.txt; fail "generate --think-min ended a thought"; }
"$wels" generate base "0 1 1" --rephrase 2 --temperature 0 -n 24 -q > said.txt || fail "generate --rephrase"
[ "$(wc -l < said.txt)" -eq 1 ] || { cat said.txt; fail "not one answer"; }
"$wels" generate base "parity 010101" --samples 5 --vote -n 24 > vote.txt 2> share.txt || fail "generate --samples --vote"
[ "$(wc -l < vote.txt)" -eq 7 ] && grep -qE '^[1-5] of 5 answers$' share.txt || { cat vote.txt share.txt; fail "no vote of five answers"; }
last=$(tail -1 vote.txt)  # as many answers are like it as is said
[ "$(head -6 vote.txt | grep -cxF -- "  $last")" -ge "$(cut -d' ' -f1 share.txt)" ] || { cat vote.txt share.txt; fail "the share is another"; }
[ "$("$wels" generate base "parity 010101" --samples 5 --vote -n 24 -q)" = "$last" ] || fail "generate --vote -q says more than the answer"
"$wels" generate base "parity 010101" --samples 2 --vote -n 1 >/dev/null 2> share.txt || fail "generate --vote of cut answers"
grep -q '^0 of 2 answers' share.txt && grep -q 'no answer came to its end; raise -n' share.txt || { cat share.txt; fail "cut answers are not said"; }
"$wels" generate base "parity 010101" --samples 5 --think-min 5 --think-again 1 -n 8 -q >/dev/null || fail "generate --samples with a bound"
"$wels" generate base "parity 010101" --samples 5 -n 24 -q | cmp - <(sed -n '2,6s/^  //p' vote.txt) || fail "generate --samples"
"$wels" generate base "parity 010101" --samples 5 -n 24 -q --stop 0 --stop 1 > cut.txt || fail "generate --samples --stop"
grep -q '[01]' <(sed 1d vote.txt) && ! grep -q '[01]' cut.txt || { cat vote.txt cut.txt; fail "answers go on behind --stop"; }
[ "$("$wels" chat base "0 1 1" --think --think-budget 0 -n 8 </dev/null | head -c 15)" = '<think></think>' ] || fail "chat --think-budget"
printf '%s\n' '/set think' '/set parameter think_budget 0' '0 1 1' '/set parameter rephrase 2' '0 1' '/save talk.json' |
  "$wels" chat base -n 8 > talk.txt || fail "chat with a budget set"
grep -q '^<think></think>' talk.txt || { cat talk.txt; fail "/set parameter think_budget"; }
grep -q '"content":"0 1"' talk.json || { cat talk.json; fail "the question was kept as it was asked"; }

# Bad input: exit code 2 and one line on stderr.
expect() {
  local pattern=$1 code=0
  shift
  "$@" >stdout.log 2>stderr.log || code=$?
  [ "$code" -eq 2 ] || { cat stderr.log; fail "exit code $code instead of 2: $*"; }
  grep -qE "$pattern" stderr.log || { cat stderr.log; fail "no error line with '$pattern': $*"; }
}
expect 'missing: does not exist' "$wels" rl missing --task parity --out a
expect '\-\-task' "$wels" rl base --out a
expect 'nonsense' "$wels" rl base --task nonsense:3 --out a
expect '\-\-algorithm: there is no "ppo"; use reinforce, grpo' "$wels" rl base --task parity:6 --algorithm ppo --out a
expect '\-\-samples: one answer has no siblings' "$wels" rl base --task parity:6 --samples 1 --out a
expect '\-\-max-tokens: a prompt of' "$wels" rl base --task parity:6 --max-tokens 100000 --out a
expect 'no time limit of a command' "$wels" rl base --task 'asked.jsonl@timeout=x command=true' --out a
expect 'there is no checker' "$wels" rl base --task 'asked.jsonl@nonsense' --out a
[ ! -e a ] || fail "bad input left a run folder behind"
expect 'top-p' "$wels" rl base --task parity:6 --top-p 0 --out a
expect 'one update per rollout' "$wels" rl base --task parity:6 --epochs 2 --out a
expect 'was started with groups 6, not 7' "$wels" "${rl[@]/#6/7}" --algorithm grpo --mini-batches 2 --refresh 3 --out whole
cp -r base/checkpoints/step-00000060 bare && rm bare/tokenizer.json
expect 'bare: has no tokenizer.json' "$wels" rl bare --task parity:6 --out a
expect 'q8.gguf: is a GGUF file, whose weights cannot be trained as they are; .*--lora 16' "$wels" rl q8.gguf --task parity:6 --out a
expect 'holds adapters, not a whole model; .*wels merge' "$wels" rl lora_base --task parity:6 --out a
expect '\-\-bias-update: moves the router of the model' "$wels" rl base --task parity:6 --lora 4 --bias-update 0.01 --out a
expect 'the model has no x_proj to adapt; some of q_a_proj' "$wels" rl base --task parity:6 --lora 4 --lora-targets x_proj --out a
expect 'was started with lora_alpha 8.0, not 10.0' "$wels" rl base "${adapters[@]}" --lora-alpha 10 --out lora_base
expect 'was started with start .*, not ' "$wels" rl merged_base "${adapters[@]}" --out lora_base
expect 'needs texts or --task' "$wels" eval base
expect '\-\-curve: is of answers to tasks' "$wels" eval base missing.txt --curve
expect '\-\-budgets: are those of a curve' "$wels" eval base --task parity:6 --budgets 0,4
expect '\-\-reference: is compared over texts' "$wels" eval base --task parity:6 --reference base
expect '\-\-answers: is of one evaluation' "$wels" eval base --task parity:6 --curve --answers a.jsonl
expect '\-\-curve: is over budgets of thought' "$wels" eval base --task parity:6 --curve --no-think
expect '\-\-rephrase: is of answers to tasks' "$wels" eval base missing.txt --rephrase 2
expect 'parity: is a generator' "$wels" eval base --task parity:6 --split all
expect '\-\-think-budget: is of thoughts, which are off' "$wels" chat base hello --think-budget 3
expect 'there are no words to go on' "$wels" generate base hello --think-min 3 --think-again ''
expect 'a grammar holds the whole answer' "$wels" generate base hello --think-budget 3 --json
expect 'a grammar holds the whole answer' "$wels" generate base hello --rephrase 2 --json
expect '\-\-samples: a grammar holds the whole answer' "$wels" generate base hello --samples 2 --json
expect '\-\-samples: at temperature 0' "$wels" generate base hello --samples 2 --temperature 0
expect '\-\-logprobs: are of one answer' "$wels" generate base hello --samples 2 --logprobs 1
expect '\-\-truncate-prompt: is of a text, not of the question of --rephrase' "$wels" generate base hello --rephrase 2 --truncate-prompt
expect '\-\-expert-memory: ref keeps no experts' "$wels" generate base hello --samples 2 --expert-memory 1 --device ref
expect 'vote: needs --samples too' "$wels" generate base hello --vote
for flags in '--rephrase 9' '--think-budget -1' '--think-min x'; do
  for command in generate chat; do
    code=0; "$wels" $command base hello $flags >stdout.log 2>stderr.log || code=$?
    [ "$code" -eq 2 ] && grep -qE -- "${flags%% *}" stderr.log || { cat stderr.log; fail "$command $flags ends with $code"; }
  done
done
# Nothing is ever right: said, then stopped.
expect 'no answer was right, for 20 steps' "$wels" rl base --task parity:60 --groups 2 --samples 2 --max-tokens 2 --steps 40 \
  --eval-items 2 --eval-every 100 --out none
grep -q "all rewards are equal" stderr.log || fail "equal rewards are not said"
echo "rl: learns, resumes to the same bits, refuses bad input"
