// Models of random weights in the shape of published ones, for benchmarks: in memory, or as a GGUF
// file that other programs can be measured on. A few random rows a matrix, over and over: what a
// matrix's values are does not change its speed.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/model.h"
#include "tensor/pool.h"

namespace wels {

struct RandomModel {
  std::string shape;   // a name of bench_shapes.h
  int64_t layers = 0;  // only so many blocks; 0: all
  std::string type;    // f32, f16, bf16, fp8, or a quantised type: mixed as `wels quantize` does
};

// Its config, and as what each weight would be kept. Throw Error for unknown names.
ModelConfig random_model_config(const RandomModel& r);
std::function<DType(const WeightSpec&)> random_model_types(const RandomModel& r);

// The model, weights allocated and filled; FP8's scales are taken from pool and held by `kept`.
// Throws Error for unknown names.
std::unique_ptr<Model> random_model(const RandomModel& r, Pool& pool,
                                    std::vector<std::shared_ptr<void>>& kept);

// The same shape and types as a GGUF file, with a tokenizer of bytes. Throws Error for unknown
// names, for fp8 (GGUF has none), and where the file cannot be written.
void write_random_gguf(const std::string& path, const RandomModel& r);

}  // namespace wels
