#!/usr/bin/env bash
# libwels.so from Python: nothing but wels.h is exported; the example says what wels chat says; nothing is printed; every wrong argument
# is an error, not a crash; a long conversation leaves room for its answer.
here=$(cd "$(dirname "$0")/../.." && pwd)
. "$(dirname "$0")/common.sh"
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
library=$(cd "$(dirname "$wels")" && pwd)/libwels.so
cd "$scratch"
exported=$(nm -D --defined-only "$library" | awk '{print $3}' | LC_ALL=C sort | tr '\n' ' ')
[ "$exported" = "wels_chat wels_close wels_complete wels_count_tokens wels_default_options wels_open wels_version " ] ||
  fail "the library exports $exported"
if ldd "$library" | grep -q 'libasan'; then echo "skipped: Python cannot load a sanitized library"; exit 77; fi

seq 1 3000 | sed 's/$/ cats sat on the mat./' > text.txt
"$wels" pretrain text.txt --out run --preset nano --seq 64 --batch-tokens 512 --micro-batch 512 --vocab 400 --steps 3 \
  --sample-every 0 >log 2>&1 || { cat log; fail "training"; }
export WELS_LIBRARY=$library
python3 "$here/examples/python/ask.py" run 'one "cat"' >asked || fail "the example"
"$wels" chat run 'one "cat"' --temperature 0 -n 256 2>/dev/null >told
cmp asked told || { cat asked told; fail "the example answers otherwise"; }
code=0; python3 "$here/examples/python/ask.py" nowhere question 2>err || code=$?
[ $code -eq 2 ] && grep -q '^error: nowhere' err || { cat err; fail "the example has no error"; }

# A tokenizer that is not the model's: the program warns.
echo >>run/checkpoints/step-00000003/tokenizer.json
"$wels" generate run cats -n 1 >log 2>&1
grep -q 'warning: .*is not the one' log || { cat log; fail "no warning"; }

cat >check.py <<'PY'
import ctypes, json, sys
sys.path.insert(0, sys.argv[1])
import ask
from ask import wels, Options, OnText
wels.wels_version.restype = ctypes.c_char_p
wels.wels_count_tokens.restype = ctypes.c_int64
wels.wels_count_tokens.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
wels.wels_complete.argtypes = wels.wels_chat.argtypes
error = ctypes.create_string_buffer(512)
question = b'[{"role": "user", "content": "one"}]'
text = b""

@OnText
def piece(at, size, _):
    global text
    text += ctypes.string_at(at, size)
    return 0

def says(what, result, failed):
    assert result == failed, (what, result)
    assert what in error.value.decode(), (what, error.value)

def chat(model, messages, function=wels.wels_chat, **options):
    global text
    text = b""
    o = wels.wels_default_options()
    for name, value in options.items():
        setattr(o, name, value)
    return function(model, messages, o, piece, None, error, 512)

assert wels.wels_version().decode() in sys.argv[2], wels.wels_version()
says("model: its path is empty; give", wels.wels_open(b"", 0, error, 512), None)
says("path: is NULL", wels.wels_open(None, 0, error, 512), None)
says("context: is negative", wels.wels_open(b"run", -1, error, 512), None)
says("model: is NULL; open one", chat(None, question), -1)
says("model: is NULL; open one", chat(None, b"one", wels.wels_complete), -1)
assert wels.wels_count_tokens(None, b"one") == -1
wels.wels_close(None)

model = wels.wels_open(b"run", 256, error, 512)
assert model, error.value
says("top_k: -5", chat(model, question, top_k=-5), -1)
says("top_k: -2147483648", chat(model, question, top_k=-2**40), -1)
says("max_tokens: is negative", chat(model, question, max_tokens=-1), -1)
says("messages: is NULL", chat(model, None), -1)
assert wels.wels_count_tokens(model, None) == wels.wels_count_tokens(model, b"\xff") == -1
assert chat(model, b"cats", wels.wels_complete, max_tokens=4) == 1 and text

# Prompts of all lengths up to the context and beyond: a quarter of it stays for the answer.
turns = []
for i in range(40):
    turns.append({"role": "user", "content": f"{i} cats"})
    result = chat(model, json.dumps(turns).encode(), max_tokens=0)
    tokens = wels.wels_count_tokens(model, text)
    assert result == 0 or (result == 1 and tokens >= 40), (i, result, tokens, error.value)
    turns.append({"role": "assistant", "content": "sat on the mat."})
wels.wels_close(model)
PY
python3 check.py "$here/examples/python" "$("$wels" --version)" >out 2>&1 || { cat out; fail "the library"; }
[ ! -s out ] || { cat out; fail "the library prints"; }
echo "library: exports wels.h alone, prints nothing, refuses what is wrong, leaves room for answers"
