/* ask MODEL QUESTION: one question through wels.h, the answer as it comes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wels.h>

static int print(const char* text, size_t bytes, void* user) {
  (void)user;
  fwrite(text, 1, bytes, stdout);
  return fflush(stdout);
}

/* The question as JSON: one message of the user. */
static char* messages_of(const char* question) {
  const char *begin = "[{\"role\":\"user\",\"content\":\"", *end = "\"}]";
  char* out = malloc(strlen(begin) + 6 * strlen(question) + strlen(end) + 1);
  if (!out) exit(1);
  char* at = stpcpy(out, begin);
  for (const char* c = question; *c; ++c) {
    if ((unsigned char)*c < 0x20 || *c == '"' || *c == '\\') {
      at += sprintf(at, "\\u%04x", (unsigned char)*c);
    } else {
      *at++ = *c;
    }
  }
  strcpy(at, end);
  return out;
}

int main(int argc, char** argv) {
  char error[512] = "";
  if (argc != 3) return fprintf(stderr, "usage: ask MODEL QUESTION\n"), 2;
  wels_model* model = wels_open(argv[1], 0, error, sizeof error);
  if (!model) return fprintf(stderr, "error: %s\n", error), 2;
  wels_options options = wels_default_options();
  options.thinking = 1;
  char* messages = messages_of(argv[2]);
  wels_result result = wels_chat(model, messages, &options, print, NULL, error, sizeof error);
  printf("\n");
  if (result == WELS_ERROR) fprintf(stderr, "error: %s\n", error);
  free(messages);
  wels_close(model);
  return result == WELS_ERROR ? 2 : 0;
}
