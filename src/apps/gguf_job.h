// A checkpoint turned into a GGUF file: what `wels quantize` and `wels export --gguf` both do.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace wels {

struct GgufJob {
  std::string model;                 // Hugging Face folder, run folder, or GGUF file
  std::string out;                   // the file to write
  std::string type;                  // a name of quant_mix.h
  std::vector<std::string> choices;  // "PATTERN=TYPE" on the file's tensor names
  bool mtp = false;                  // with the MTP modules
  std::string calibration;           // text to calibrate with; empty: none
  int64_t calibration_tokens = 0;
};

// Writes the file, with progress on stderr and a summary on stdout. Returns the exit code: 0, or
// 130 after Ctrl-C, which leaves nothing behind. Throws Error.
int write_gguf_file(const GgufJob& job);

}  // namespace wels
