#!/usr/bin/env bash
# A small model learns from a teacher or by reinforcement learning, at equal operations (the question of the R1 paper's table F.1, in
# small): a dense Qwen2-shaped student whose base answers at once, mostly wrongly, and thinks in a fifth of what is drawn.
#   rl         the outcome as the only reward
#   sft        the teacher's right answers, learned (its answering counted)
#   logits     the teacher's distributions over the same answers (its answering and judging counted)
#   on-policy  the student's own answers, every token judged by the teacher (its judging counted)
# RL comes first; each other arm then gets as many steps as its operations allow. Operations: a third of those of a trained token for a
# sampled or judged one; RL's scoring and all evaluation are not counted. One line an arm, then the table over the seeds.
#   WELS_TASK=parity:12 WELS_SEEDS="1 2 3" WELS_RL_STEPS=10 recipes/distill_against_rl.sh
set -euo pipefail
[ $# -eq 0 ] || { echo "error: $1: one argument too many; use WELS_TASK and the other variables" >&2; exit 2; }
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
out=${WELS_OUT:-out/distill_against_rl}
task=${WELS_TASK:-parity:12}
rl_steps=${WELS_RL_STEPS:-10} questions=${WELS_QUESTIONS:-256} batch=${WELS_BATCH:-64} max_tokens=${WELS_MAX_TOKENS:-48}
mkdir -p "$out"

quiet() { # LOG COMMAND...: its output into LOG, whose last line is shown where it fails
  local log=$1
  shift
  "$@" >"$log" 2>&1 || { tail -1 "$log" >&2; return 1; }
}
last() { # RUN NAME: the last value of a metric
  sed -n "s/.*\"$2\":\([0-9.e+]*\).*/\1/p" "$out/$1/metrics.jsonl" | tail -1
}
total() { # RUN NAME: the sum of a metric over the steps
  sed -n "s/.*\"$2\":\([0-9.e+]*\).*/\1/p" "$out/$1/metrics.jsonl" | awk '{s += $1} END {print s + 0}'
}
per_token() { # RUN: operations of a trained token
  awk -v g="$(last "$1" gflops)" -v t="$(last "$1" tokens_per_s)" 'BEGIN {print g * 1e9 / t}'
}
sampled() { # RUN: tokens that RL sampled, from its last checkpoint
  grep -rhoE '"sampled_tokens": *[0-9]+' "$out/$1"/checkpoints/step-*/ | grep -oE '[0-9]+' | sort -n | tail -1
}
steps_for() { # OPERATIONS COST_OF_A_STEP: at least one
  awk -v f="$1" -v c="$2" 'BEGIN {n = int(f / c + 0.5); print n < 1 ? 1 : n}'
}
measure() { # SEED ARM OPERATIONS
  "$wels" eval "$out/$1-$2" --task "$task" --items 300 --samples 4 --max-tokens "$max_tokens" >"$out/$1-$2.eval" 2>&1 ||
    { tail -1 "$out/$1-$2.eval" >&2; return 1; }
  echo "seed $1 $2 $(sed -n 's/^greedy *accuracy \([0-9.]*\).*/\1/p' "$out/$1-$2.eval" | head -1)" \
    "$(sed -n 's/^sampled *accuracy \([0-9.]*\).*/\1/p' "$out/$1-$2.eval" | head -1) $(awk -v f="$3" 'BEGIN {print f / 1e9}')" |
    tee -a "$out/results.txt"
}

: >"$out/results.txt"
teacher=$out/teacher
quiet "$out/teacher-base.log" "$wels" sft --preset nano --task "$task" --p-cot 0.2 --steps "${WELS_TEACHER_STEPS:-250}" --seed 11 --sample-every 0 --out "$teacher-base"
quiet "$out/teacher.log" "$wels" rl "$teacher-base" --task "$task" --max-tokens "$max_tokens" --steps "${WELS_TEACHER_RL_STEPS:-25}" --seed 11 --out "$teacher"
judge=$(per_token teacher-base)  # of a trained token; a sampled one costs a third
recipes/dense_student.sh "$teacher" >"$out/student.json"
for seed in ${WELS_SEEDS:-1 2 3}; do
  # Chains alone until they are right, then the mixture (docs/log.md, 2026-11-28).
  quiet "$out/$seed-chains.log" "$wels" sft --config "$out/student.json" --tokenizer "$(ls -d "$teacher"/checkpoints/step-* | tail -1)/tokenizer.json" \
    --task "$task" --p-cot 1 --steps "${WELS_CHAIN_STEPS:-150}" --lr 2e-3 --seed "$seed" --sample-every 0 --out "$out/$seed-chains"
  quiet "$out/$seed-base.log" "$wels" sft "$out/$seed-chains" --task "$task" --p-cot 0.2 --steps "${WELS_MIX_STEPS:-60}" --lr 1e-3 --seed "$seed" \
    --sample-every 0 --out "$out/$seed-base"
  own=$(per_token "$seed-base")
  measure "$seed" base 0
  quiet "$out/$seed-rl.log" "$wels" rl "$out/$seed-base" --task "$task" --max-tokens "$max_tokens" --steps "$rl_steps" --seed "$seed" \
    --out "$out/$seed-rl"
  budget=$(awk -v t="$(last "$seed-rl" tokens)" -v s="$(sampled "$seed-rl")" -v c="$own" 'BEGIN {print c * (t + s / 3)}')
  measure "$seed" rl "$budget"
  distill() { # NAME STEPS FLAG...
    local name=$1 steps=$2
    shift 2
    quiet "$out/$seed-$name.log" "$wels" distill "$out/$seed-base" "$@" --teacher "$teacher" --max-tokens "$max_tokens" --batch "$batch" \
      --steps "$steps" --lr 5e-4 --seed "$seed" --sample-every 0 --eval-examples 64 --out "$out/$seed-$name"
  }
  answering() { # RUN: what the teacher's answers cost, by the mean length of an example that RUN learned
    awk -v t="$(last "$1" tokens)" -v n="$2" -v b="$batch" -v q="$questions" -v c="$judge" 'BEGIN {print q * t / (n * b) * c / 3}'
  }
  distill probe-sft 2 --task "$task" --questions "$questions" --tries 1
  asked=$(answering "$seed-probe-sft" 2)
  left=$(awk -v f="$budget" -v a="$asked" 'BEGIN {print f - a}')
  rows=$(awk -v t="$(last "$seed-probe-sft" tokens)" 'BEGIN {print t / 2}')
  n=$(steps_for "$left" "$(awk -v r="$rows" -v c="$own" 'BEGIN {print r * c}')")
  distill sft "$n" --task "$task" --questions "$questions" --tries 1
  measure "$seed" sft "$(awk -v a="$asked" -v t="$(last "$seed-sft" tokens)" -v c="$own" 'BEGIN {print a + t * c}')"
  n=$(steps_for "$left" "$(awk -v r="$rows" -v c="$own" -v j="$judge" 'BEGIN {print r * (c + j / 3)}')")
  distill logits "$n" --mode logits "$out/$seed-sft"/answers/*.jsonl
  measure "$seed" logits "$(awk -v a="$asked" -v s="$(total "$seed-logits" flops)" 'BEGIN {print a + s}')"
  distill probe-own 3 --mode on-policy --task "$task" --eval-items 16
  n=$(steps_for "$budget" "$(awk -v s="$(total "$seed-probe-own" flops)" 'BEGIN {print s / 3}')")
  distill on-policy "$n" --mode on-policy --task "$task" --eval-items 16
  measure "$seed" on-policy "$(total "$seed-on-policy" flops)"
done
echo "arm, greedy, drawn, GFLOP: mean ± standard error over seeds"
awk '{if (!($3 in n)) order[++arms] = $3; n[$3]++; for (i = 4; i <= 6; i++) {s[$3, i] += $i; q[$3, i] += $i * $i}}
  END {for (j = 1; j <= arms; j++) {a = order[j]; printf "%-10s", a
    for (i = 4; i <= 6; i++) {m = s[a, i] / n[a]; v = n[a] > 1 ? (q[a, i] - n[a] * m * m) / (n[a] - 1) / n[a] : 0
      printf "  %.3f ± %.3f", m, sqrt(v > 0 ? v : 0)}
    print ""}}' "$out/results.txt"
