/* The engine of wels as a C library: open a model, complete texts, hold conversations.
 *
 *   find_package(wels REQUIRED)
 *   target_link_libraries(mine wels::wels)
 *
 * or, as a shared library, cc mine.c -lwels; examples/python loads that one.
 *
 * Text is UTF-8. A model is for one thread at a time; several models may be used at once. Functions
 * that can fail take `error`, which gets one line that says where, what and what to do (cut to
 * error_bytes, always ended by 0; may be NULL). Nothing is printed: wels_open turns off what wels
 * logs in this process, also from C++. */
#ifndef WELS_H
#define WELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wels_model wels_model;

typedef struct wels_options {
  int64_t max_tokens;    /* of an answer; 0: until it ends or the context is full */
  double temperature;    /* 0: always the most probable token */
  double top_p, min_p;   /* 1 and 0: off */
  int64_t top_k;         /* 0: off */
  uint64_t seed;         /* the same seed, the same text */
  int thinking;          /* wels_chat: reason first, where the template has the choice */
} wels_options;

/* A piece of text as it comes, not ended by 0; other than 0: enough. */
typedef int (*wels_on_text)(const char* text, size_t bytes, void* user);

typedef enum wels_result {
  WELS_DONE = 0,    /* the text has ended */
  WELS_LENGTH = 1,  /* max_tokens or the context ended it */
  WELS_STOPPED = 2, /* on_text did */
  WELS_ERROR = -1
} wels_result;

const char* wels_version(void);

/* max_tokens 256, temperature 0, everything else off. */
wels_options wels_default_options(void);

/* path: a folder with config.json, safetensors and tokenizer.json, a run's folder, or a GGUF file.
 * context: tokens of a prompt with its answer (0: 4096, or the model's). NULL: error says why. */
wels_model* wels_open(const char* path, int64_t context, char* error, size_t error_bytes);
void wels_close(wels_model* model); /* NULL: nothing */

/* Tokens of a text; -1 where it is no UTF-8, or either argument NULL. */
int64_t wels_count_tokens(wels_model* model, const char* text);

/* Continues `prompt`. What was computed of earlier prompts is found again. options NULL: the
 * defaults. */
wels_result wels_complete(wels_model* model, const char* prompt, const wels_options* options,
                          wels_on_text on_text, void* user, char* error, size_t error_bytes);

/* Answers a conversation: messages is JSON as in OpenAI's API,
 * [{"role": "user", "content": "..."}].
 * The template is the model's own; reasoning comes as text between <think> and </think>. A model
 * without a template continues the text. A quarter of the context is kept for the answer,
 * or max_tokens where those are fewer: of a conversation that leaves less the oldest turns are left
 * out, but for the system prompt. */
wels_result wels_chat(wels_model* model, const char* messages, const wels_options* options,
                      wels_on_text on_text, void* user, char* error, size_t error_bytes);

#ifdef __cplusplus
}
#endif
#endif
