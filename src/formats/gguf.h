// GGUF: llama.cpp's model format, one file with metadata, tokenizer and weights.
//
//   "GGUF" · u32 version (2 or 3) · u64 number of tensors · u64 number of metadata pairs
//   pair:    string key · u32 type · value
//   string:  u64 length, bytes          array: u32 element type, u64 count, elements
//   tensor:  string name · u32 dimensions · u64 extents, fastest first · u32 ggml type · u64 offset
//            into the data
//   padding to the alignment (general.alignment, 32 by default) · data, every tensor aligned
//
// A model in several files: NAME-00001-of-00003.gguf and on, the metadata in the first, in each
// split.no (from 0), split.count and split.tensors.count (of all).
//
// All little endian. wels gives shapes slowest dimension first, as everywhere else. Source: the
// GGUF specification (ggml repository, docs/gguf.md).
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "formats/tensor_entry.h"

namespace wels {

enum class GgufType : uint32_t {
  kU8 = 0,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
};

struct GgufValue;

// Elements of one type. Numbers and booleans stay packed, little endian.
struct GgufArray {
  GgufType element = GgufType::kU8;
  std::vector<uint8_t> packed;       // all types but strings and arrays
  std::vector<std::string> strings;  // element == kString
  std::vector<GgufValue> arrays;     // element == kArray
  int64_t size() const;
};

struct GgufValue {
  GgufType type = GgufType::kU8;
  // Unsigned types: uint64_t, signed: int64_t, floats: double.
  std::variant<uint64_t, int64_t, double, bool, std::string, GgufArray> value;
};

GgufValue gguf_u32(uint32_t v);
GgufValue gguf_f32(float v);
GgufValue gguf_bool(bool v);
GgufValue gguf_string(std::string v);
GgufValue gguf_strings(std::vector<std::string> v);
GgufValue gguf_i32s(const std::vector<int32_t>& v);
GgufValue gguf_f32s(const std::vector<float>& v);

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

// A parsed file. The typed getters throw Error naming file and key: has() false, or another type.
struct GgufContent {
  std::string where;
  uint32_t version = 0;
  int64_t alignment = 32;
  GgufMetadata metadata;             // in file order
  std::vector<TensorEntry> tensors;  // in file order; data points into the file

  const GgufValue* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }
  int64_t integer(std::string_view key) const;  // any integer type
  double number(std::string_view key) const;    // any integer or float type
  bool boolean(std::string_view key) const;
  const std::string& text(std::string_view key) const;
  const std::vector<std::string>& strings(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;  // array of any integer type
  std::vector<double> numbers(std::string_view key) const;    // array of any integer or float type
  const TensorEntry* find_tensor(std::string_view name) const;
  const TensorEntry& tensor(std::string_view name) const;  // throws Error: not there
  // Adds the tensors of another part of the same model. Throws Error: a name that is there already.
  void append(GgufContent part);

 private:
  friend GgufContent parse_gguf(std::span<const uint8_t> bytes, const std::string& where);
  std::unordered_map<std::string, size_t> metadata_index_, tensor_index_;
};

// Parses the bytes of one file; tensors point into them. Throws Error naming key or tensor and the
// numbers: no GGUF, other version or byte order, truncation, counts beyond the file, duplicates,
// unknown types, bad alignment, offsets that are out of range, unaligned or overlapping.
GgufContent parse_gguf(std::span<const uint8_t> bytes, const std::string& where);

// An opened, memory-mapped file. The first of several parts opens them all: their tensors are one
// list, the metadata those of the first. Throws Error: a later part, parts missing or of another
// model.
class GgufReader {
 public:
  explicit GgufReader(const std::string& path);
  GgufReader(GgufReader&&) noexcept;
  GgufReader& operator=(GgufReader&&) noexcept;
  ~GgufReader();
  const GgufContent& content() const { return content_; }
  const GgufContent* operator->() const { return &content_; }

 private:
  void open_parts(const std::string& path, int64_t count);
  struct Files;
  std::unique_ptr<Files> files_;
  GgufContent content_;
};

// Writes version 3, atomically, metadata and tensors in the given order. Types must have a ggml
// number (quant.h, or F64, I8 to I64); names must differ and be at most 63 bytes long, ggml's
// limit. Returns the file's bytes.
int64_t write_gguf(const std::string& path, const GgufMetadata& metadata,
                   const std::vector<TensorSource>& tensors);

// "Q4_K (12)", for messages and listings; also for types that wels does not decode.
std::string ggml_type_name(uint32_t ggml_type);

}  // namespace wels
