#!/usr/bin/env python3
"""ask.py MODEL QUESTION: one question through libwels.so, the answer as it comes. Nothing but Python's own ctypes.

WELS_LIBRARY: where the library is, if not where the system looks (build/release/libwels.so)."""
import ctypes
import json
import os
import sys
from ctypes import c_char_p, c_double, c_int, c_int64, c_size_t, c_uint64, c_void_p


class Options(ctypes.Structure):  # wels_options of wels.h
    _fields_ = [("max_tokens", c_int64), ("temperature", c_double), ("top_p", c_double), ("min_p", c_double),
                ("top_k", c_int64), ("seed", c_uint64), ("thinking", c_int)]


OnText = ctypes.CFUNCTYPE(c_int, c_void_p, c_size_t, c_void_p)
WELS_ERROR = -1

wels = ctypes.CDLL(os.environ.get("WELS_LIBRARY", "libwels.so.0.1"))
wels.wels_default_options.restype = Options
wels.wels_open.restype = c_void_p
wels.wels_open.argtypes = [c_char_p, c_int64, c_char_p, c_size_t]
wels.wels_close.argtypes = [c_void_p]
wels.wels_chat.argtypes = [c_void_p, c_char_p, ctypes.POINTER(Options), OnText, c_void_p, c_char_p, c_size_t]


class Model:
    def __init__(self, path, context=0):
        self.error = ctypes.create_string_buffer(512)
        self.handle = wels.wels_open(path.encode(), context, self.error, len(self.error))
        if not self.handle:
            raise RuntimeError(self.error.value.decode(errors="replace"))

    def __del__(self):
        wels.wels_close(self.handle)

    def chat(self, messages, on_text, **options):
        """messages as in OpenAI's API; options are those of wels_options; on_text(bytes) for each piece of the answer."""
        o = wels.wels_default_options()
        for name, value in options.items():
            setattr(o, name, value)

        @OnText
        def piece(text, size, _):
            on_text(ctypes.string_at(text, size))
            return 0

        if wels.wels_chat(self.handle, json.dumps(messages).encode(), o, piece, None, self.error, len(self.error)) == WELS_ERROR:
            raise RuntimeError(self.error.value.decode(errors="replace"))


def show(text):
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: ask.py MODEL QUESTION")
    try:
        Model(sys.argv[1]).chat([{"role": "user", "content": sys.argv[2]}], show, thinking=1)
    except RuntimeError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    print()
