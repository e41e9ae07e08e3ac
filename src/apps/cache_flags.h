// The flags of the KV cache.
#pragma once
#include <CLI/CLI.hpp>
#include <string>

#include "apps/loaded_model.h"
#include "engine/engine.h"

namespace wels {

// --kv-cache, of those that generate (cache_type makes a type of it).
inline void add_cache_type_flag(CLI::App* sub, std::string& type) {
  sub->add_option("--kv-cache", type,
                  "how cached keys and values are kept: auto (as --dtype), f32, bf16, or q8 (8 "
                  "bits and a scale per 32)")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "q8"}))
      ->capture_default_str();
}

struct CacheFlags {
  std::string type = "auto", folder;
  double gigabytes = 10;
  void add(CLI::App* sub) {
    add_cache_type_flag(sub, type);
    CLI::Option* dir = sub->add_option(
        "--cache-dir", folder, "keep what was computed of prompts in this folder, for later runs");
    sub->add_option("--cache-gb", gigabytes,
                    "size of that folder at most, in GB; what was used longest ago goes first")
        ->check(CLI::PositiveNumber)
        ->needs(dir)
        ->capture_default_str();
  }
  CacheOptions options(DType dtype) const {
    return {.folder = folder,
            .folder_bytes = static_cast<int64_t>(std::min(gigabytes, 1e9) * 1e9),
            .dtype = cache_type(type, dtype)};
  }
};

}  // namespace wels
