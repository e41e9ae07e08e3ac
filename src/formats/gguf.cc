#include "formats/gguf.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "base/check.h"
#include "base/error.h"
#include "base/file.h"
#include "formats/json.h"
#include "tensor/quant.h"

namespace wels {
namespace {

constexpr int kMaxDims = 4, kMaxArrayDepth = 8;
constexpr const char* kDamaged = "the file is damaged or truncated; copy it again";

// Bytes of a value of fixed size; 0 for strings and arrays; -1: no such type.
int fixed_bytes(GgufType t) {
  switch (t) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return -1;
}

struct PlainType {
  DType dtype;
  uint32_t ggml_type;
};
// Types beside those of the quantisation table.
constexpr PlainType kPlainTypes[] = {
    {DType::kI8, 24}, {DType::kI16, 25}, {DType::kI32, 26}, {DType::kI64, 27}, {DType::kF64, 28}};

std::optional<DType> dtype_of_ggml(uint32_t type) {
  if (const QuantFormat* f = find_quant_format_by_ggml_type(type)) return f->dtype;
  for (const PlainType& p : kPlainTypes) {
    if (p.ggml_type == type) return p.dtype;
  }
  return std::nullopt;
}
uint32_t ggml_of_dtype(DType dtype) {
  if (const QuantFormat* f = find_quant_format(dtype)) return f->ggml_type;
  for (const PlainType& p : kPlainTypes) {
    if (p.dtype == dtype) return p.ggml_type;
  }
  CHECK(false);
  return 0;
}

// A scalar from its little-endian bytes.
GgufValue scalar(GgufType type, const uint8_t* p) {
  int n = fixed_bytes(type);
  uint64_t u = 0;
  for (int i = n - 1; i >= 0; --i) u = u << 8 | p[i];
  GgufValue out{type, {}};
  switch (type) {
    case GgufType::kU8:
    case GgufType::kU16:
    case GgufType::kU32:
    case GgufType::kU64:
      out.value = u;
      break;
    case GgufType::kI8:
      out.value = int64_t{static_cast<int8_t>(u)};
      break;
    case GgufType::kI16:
      out.value = int64_t{static_cast<int16_t>(u)};
      break;
    case GgufType::kI32:
      out.value = int64_t{static_cast<int32_t>(u)};
      break;
    case GgufType::kI64:
      out.value = static_cast<int64_t>(u);
      break;
    case GgufType::kF32:
      out.value = static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(u)));
      break;
    case GgufType::kF64:
      out.value = std::bit_cast<double>(u);
      break;
    case GgufType::kBool:
      out.value = u != 0;
      break;
    default:
      CHECK(n > 0);
  }
  return out;
}

// Walks the header; every read is checked against the end of the file.
class Cursor {
 public:
  Cursor(std::span<const uint8_t> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  uint64_t position() const { return at_; }
  uint64_t left() const { return bytes_.size() - at_; }
  const uint8_t* take(uint64_t n, const std::string& what) {
    if (n > left()) {
      throw Error(
          where_,
          fmt::format("{} needs {} bytes at offset {}, the file has {} left", what, n, at_, left()),
          kDamaged);
    }
    const uint8_t* p = bytes_.data() + at_;
    at_ += n;
    return p;
  }
  uint32_t u32(const std::string& what) {
    return static_cast<uint32_t>(std::get<uint64_t>(scalar(GgufType::kU32, take(4, what)).value));
  }
  uint64_t u64(const std::string& what) {
    return std::get<uint64_t>(scalar(GgufType::kU64, take(8, what)).value);
  }
  std::string text(const std::string& what) {
    uint64_t n = u64(what);
    const uint8_t* p = take(n, what);
    return std::string(reinterpret_cast<const char*>(p), n);
  }
  // How many items of at least min_bytes each can still follow.
  void plausible(uint64_t count, uint64_t min_bytes, const std::string& what) const {
    if (count > left() / min_bytes) {
      throw Error(where_,
                  fmt::format("{} announces {} items, more than the {} bytes left can hold", what,
                              count, left()),
                  kDamaged);
    }
  }
  GgufType type(const std::string& what) {
    uint32_t t = u32(what);
    if (t > static_cast<uint32_t>(GgufType::kF64)) {
      throw Error(where_, fmt::format("{} has the unknown type {}", what, t), kDamaged);
    }
    return static_cast<GgufType>(t);
  }

  GgufValue value(GgufType type, const std::string& what, int depth) {
    if (type == GgufType::kString) return {type, text(what)};
    if (type == GgufType::kArray) return {type, array(what, depth)};
    const uint8_t* p = take(static_cast<uint64_t>(fixed_bytes(type)), what);
    if (type == GgufType::kBool && *p > 1)
      throw Error(where_, fmt::format("{} is a boolean of value {}", what, *p), kDamaged);
    return scalar(type, p);
  }

 private:
  GgufArray array(const std::string& what, int depth) {
    if (depth >= kMaxArrayDepth)
      throw Error(where_, fmt::format("{} nests arrays deeper than {}", what, kMaxArrayDepth));
    GgufArray out;
    out.element = type(what);
    uint64_t count = u64(what);
    int fixed = fixed_bytes(out.element);
    plausible(count,
              fixed > 0                          ? static_cast<uint64_t>(fixed)
              : out.element == GgufType::kString ? 8
                                                 : 12,
              what);
    if (fixed > 0) {
      const uint8_t* p = take(count * static_cast<uint64_t>(fixed), what);
      out.packed.assign(p, p + count * static_cast<uint64_t>(fixed));
    } else if (out.element == GgufType::kString) {
      out.strings.reserve(count);
      for (uint64_t i = 0; i < count; ++i) out.strings.push_back(text(what));
    } else {
      for (uint64_t i = 0; i < count; ++i)
        out.arrays.push_back(value(GgufType::kArray, what, depth + 1));
    }
    return out;
  }

  std::span<const uint8_t> bytes_;
  const std::string& where_;
  uint64_t at_ = 0;
};

struct TensorInfo {
  TensorEntry entry;
  uint64_t offset;
  int64_t bytes;
};

TensorInfo parse_tensor_info(Cursor& in, const std::string& where) {
  TensorInfo t;
  t.entry.name = in.text("a tensor's name");
  std::string what = fmt::format("tensor {}", printable(t.entry.name));
  uint32_t dims = in.u32(what);
  if (dims > kMaxDims)
    throw Error(where, fmt::format("{} has {} dimensions; at most {} exist", what, dims, kMaxDims),
                kDamaged);
  for (uint32_t i = 0; i < dims; ++i) {
    uint64_t extent = in.u64(what);
    if (extent > uint64_t{INT64_MAX})
      throw Error(where, fmt::format("{} has an extent of {}", what, extent), kDamaged);
    t.entry.shape.insert(t.entry.shape.begin(), static_cast<int64_t>(extent));
  }
  uint32_t type = in.u32(what);
  std::optional<DType> dtype = dtype_of_ggml(type);
  if (!dtype) {
    throw Error(where,
                fmt::format("{} has type {}, which is not supported", what, ggml_type_name(type)),
                "use a file quantised as F32, F16, BF16, Q8_0, Q4_0 to Q5_1, Q2_K to Q6_K, IQ4_NL, "
                "IQ4_XS or MXFP4");
  }
  t.entry.dtype = *dtype;
  t.offset = in.u64(what);
  std::optional<int64_t> bytes = tensor_bytes(*dtype, t.entry.shape);
  if (!bytes) {
    throw Error(where,
                fmt::format("{}: shape [{}] is impossible for {} with blocks of {}", what,
                            fmt::join(t.entry.shape, ", "), name(*dtype), info(*dtype).block),
                kDamaged);
  }
  t.bytes = *bytes;
  return t;
}

void check_placement(const std::vector<TensorInfo>& tensors, uint64_t data_bytes, int64_t alignment,
                     const std::string& where) {
  std::vector<const TensorInfo*> by_offset;
  for (const TensorInfo& t : tensors) {
    std::string n = printable(t.entry.name);
    if (t.offset % static_cast<uint64_t>(alignment) != 0) {
      throw Error(where,
                  fmt::format("tensor {}: offset {} is no multiple of the alignment {}", n,
                              t.offset, alignment),
                  kDamaged);
    }
    if (t.offset > data_bytes || static_cast<uint64_t>(t.bytes) > data_bytes - t.offset) {
      throw Error(where,
                  fmt::format("tensor {}: {} bytes at offset {} exceed the file's {} bytes of data",
                              n, t.bytes, t.offset, data_bytes),
                  kDamaged);
    }
    if (t.bytes > 0) by_offset.push_back(&t);
  }
  std::sort(by_offset.begin(), by_offset.end(),
            [](auto* a, auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const TensorInfo &a = *by_offset[i - 1], &b = *by_offset[i];
    if (a.offset + static_cast<uint64_t>(a.bytes) > b.offset) {
      throw Error(where,
                  fmt::format("tensor {} (offset {}, {} bytes) overlaps tensor {} (offset {})",
                              printable(a.entry.name), a.offset, a.bytes, printable(b.entry.name),
                              b.offset),
                  "the file is damaged");
    }
  }
}

[[noreturn]] void wrong_type(const GgufContent& c, std::string_view key, const char* wanted) {
  throw Error(c.where, fmt::format("{} is not {}", key, wanted),
              "the file was written by a program that uses this key differently");
}
const GgufValue& required(const GgufContent& c, std::string_view key) {
  const GgufValue* v = c.find(key);
  if (!v)
    throw Error(c.where, fmt::format("{} is missing", key), "models of this architecture have it");
  return *v;
}
std::optional<int64_t> as_integer(const GgufValue& v) {
  if (auto* u = std::get_if<uint64_t>(&v.value); u && *u <= uint64_t{INT64_MAX})
    return static_cast<int64_t>(*u);
  if (auto* i = std::get_if<int64_t>(&v.value)) return *i;
  return std::nullopt;
}
std::optional<double> as_number(const GgufValue& v) {
  if (auto* d = std::get_if<double>(&v.value)) return *d;
  if (auto* u = std::get_if<uint64_t>(&v.value)) return static_cast<double>(*u);
  if (auto* i = std::get_if<int64_t>(&v.value)) return static_cast<double>(*i);
  return std::nullopt;
}

template <class T, class As>
std::vector<T> elements(const GgufContent& c, std::string_view key, As as, const char* wanted) {
  auto* a = std::get_if<GgufArray>(&required(c, key).value);
  int fixed = a ? fixed_bytes(a->element) : 0;
  if (fixed == 0) wrong_type(c, key, wanted);
  std::vector<T> out;
  out.reserve(static_cast<size_t>(a->size()));
  for (int64_t i = 0; i < a->size(); ++i) {
    std::optional<T> x = as(scalar(a->element, a->packed.data() + i * fixed));
    if (!x) wrong_type(c, key, wanted);
    out.push_back(*x);
  }
  return out;
}

}  // namespace

int64_t GgufArray::size() const {
  if (element == GgufType::kString) return static_cast<int64_t>(strings.size());
  if (element == GgufType::kArray) return static_cast<int64_t>(arrays.size());
  return static_cast<int64_t>(packed.size()) / fixed_bytes(element);
}

const GgufValue* GgufContent::find(std::string_view key) const {
  auto it = metadata_index_.find(std::string(key));
  return it == metadata_index_.end() ? nullptr : &metadata[it->second].second;
}
int64_t GgufContent::integer(std::string_view key) const {
  std::optional<int64_t> v = as_integer(required(*this, key));
  if (!v) wrong_type(*this, key, "an integer");
  return *v;
}
double GgufContent::number(std::string_view key) const {
  std::optional<double> v = as_number(required(*this, key));
  if (!v) wrong_type(*this, key, "a number");
  return *v;
}
bool GgufContent::boolean(std::string_view key) const {
  auto* b = std::get_if<bool>(&required(*this, key).value);
  if (!b) wrong_type(*this, key, "a boolean");
  return *b;
}
const std::string& GgufContent::text(std::string_view key) const {
  auto* s = std::get_if<std::string>(&required(*this, key).value);
  if (!s) wrong_type(*this, key, "a string");
  return *s;
}
const std::vector<std::string>& GgufContent::strings(std::string_view key) const {
  auto* a = std::get_if<GgufArray>(&required(*this, key).value);
  if (!a || a->element != GgufType::kString) wrong_type(*this, key, "an array of strings");
  return a->strings;
}
std::vector<int64_t> GgufContent::integers(std::string_view key) const {
  return elements<int64_t>(*this, key, as_integer, "an array of integers");
}
std::vector<double> GgufContent::numbers(std::string_view key) const {
  return elements<double>(*this, key, as_number, "an array of numbers");
}
const TensorEntry* GgufContent::find_tensor(std::string_view name) const {
  auto it = tensor_index_.find(std::string(name));
  return it == tensor_index_.end() ? nullptr : &tensors[it->second];
}
const TensorEntry& GgufContent::tensor(std::string_view name) const {
  const TensorEntry* t = find_tensor(name);
  if (!t)
    throw Error(where, fmt::format("tensor {} is missing", name),
                "the file does not fit its architecture");
  return *t;
}

GgufContent parse_gguf(std::span<const uint8_t> bytes, const std::string& where) {
  Cursor in(bytes, where);
  if (bytes.size() < 4 || std::memcmp(bytes.data(), "GGUF", 4) != 0) {
    throw Error(where, "the file does not begin with GGUF", "give a .gguf file");
  }
  in.take(4, "the magic");
  GgufContent out;
  out.where = where;
  out.version = in.u32("the version");
  if (out.version != 2 && out.version != 3) {
    bool swapped = out.version != 0 && (out.version & 0xffff) == 0;
    throw Error(where,
                swapped ? std::string("the file is big endian")
                        : fmt::format("GGUF version {} is not supported", out.version),
                swapped ? "convert it to little endian" : "supported: 2 and 3");
  }
  uint64_t tensor_count = in.u64("the number of tensors"),
           pair_count = in.u64("the number of metadata pairs");
  in.plausible(pair_count, 8 + 4 + 1, "the metadata");
  for (uint64_t i = 0; i < pair_count; ++i) {
    std::string key = in.text("a metadata key");
    std::string what = fmt::format("metadata {}", printable(key));
    GgufType type = in.type(what);
    GgufValue value = in.value(type, what, 0);
    if (!out.metadata_index_.emplace(key, out.metadata.size()).second) {
      throw Error(where, fmt::format("{} appears twice", what), "the file is damaged");
    }
    out.metadata.emplace_back(std::move(key), std::move(value));
  }
  if (out.has("general.alignment")) {
    out.alignment = out.integer("general.alignment");
    if (out.alignment < 1 || out.alignment > (1 << 20) ||
        !std::has_single_bit(static_cast<uint64_t>(out.alignment))) {
      throw Error(where, fmt::format("general.alignment is {}", out.alignment),
                  "it must be a power of two up to 1048576");
    }
  }
  in.plausible(tensor_count, 8 + 4 + 4 + 8, "the tensor list");
  std::vector<TensorInfo> infos;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    infos.push_back(parse_tensor_info(in, where));
    if (!out.tensor_index_.emplace(infos.back().entry.name, i).second) {
      throw Error(where, fmt::format("tensor {} appears twice", printable(infos.back().entry.name)),
                  "the file is damaged");
    }
  }
  uint64_t align = static_cast<uint64_t>(out.alignment);
  uint64_t begin = std::min<uint64_t>((in.position() + align - 1) / align * align, bytes.size());
  std::span<const uint8_t> data = bytes.subspan(begin);
  check_placement(infos, data.size(), out.alignment, where);
  for (TensorInfo& t : infos) {
    if (t.bytes > 0) t.entry.data = data.subspan(t.offset, static_cast<size_t>(t.bytes));
    out.tensors.push_back(std::move(t.entry));
  }
  return out;
}

void GgufContent::append(GgufContent part) {
  for (TensorEntry& t : part.tensors) {
    if (!tensor_index_.emplace(t.name, tensors.size()).second)
      throw Error(part.where, fmt::format("tensor {} is in another part too", printable(t.name)),
                  "the parts belong to different models");
    tensors.push_back(std::move(t));
  }
}

struct GgufReader::Files {
  std::vector<MappedFile> mapped;
  GgufContent parse(const std::string& path) {
    mapped.emplace_back(path);
    return parse_gguf(mapped.back().bytes(), path);
  }
};
GgufReader::GgufReader(GgufReader&&) noexcept = default;
GgufReader& GgufReader::operator=(GgufReader&&) noexcept = default;
GgufReader::~GgufReader() = default;
GgufReader::GgufReader(const std::string& path) : files_(new Files) {
  content_ = files_->parse(path);
  int64_t count = content_.has("split.count") ? content_.integer("split.count") : 0;
  if (count > 1) open_parts(path, count);
}

void GgufReader::open_parts(const std::string& path, int64_t count) {
  auto ending = [&](int64_t part) { return fmt::format("-{:05}-of-{:05}.gguf", part, count); };
  if (content_.integer("split.no") != 0 || !path.ends_with(ending(1))) {
    throw Error(path, fmt::format("part {} of {}", content_.integer("split.no") + 1, count),
                "give the first part, the others beside it: NAME" + ending(1));
  }
  for (int64_t i = 1; i < count; ++i) {
    std::string other = path.substr(0, path.size() - ending(1).size()) + ending(i + 1);
    GgufContent part = files_->parse(other);
    if (part.integer("split.no") != i || part.integer("split.count") != count)
      throw Error(other, fmt::format("is not part {} of {}", i + 1, count),
                  "the parts belong to different models");
    content_.append(std::move(part));
  }
  int64_t want = content_.integer("split.tensors.count");
  int64_t got = static_cast<int64_t>(content_.tensors.size());
  if (got != want)
    throw Error(path, fmt::format("{} parts hold {} tensors instead of {}", count, got, want),
                "the parts belong to different models");
}

std::string ggml_type_name(uint32_t type) {
  static constexpr std::pair<uint32_t, const char*> kOthers[] = {
      {9, "Q8_1"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
      {21, "IQ3_S"}, {22, "IQ2_S"}, {24, "I8"},      {25, "I16"},    {26, "I32"},     {27, "I64"},
      {28, "F64"},   {29, "IQ1_M"}, {34, "TQ1_0"},   {35, "TQ2_0"},  {40, "NVFP4"}};
  const char* n = "unknown";
  if (const QuantFormat* f = find_quant_format_by_ggml_type(type)) n = f->gguf_name;
  for (auto [number, name] : kOthers) {
    if (number == type) n = name;
  }
  return fmt::format("{} ({})", n, type);
}

namespace {

GgufValue packed_array(GgufType element, const void* data, size_t bytes) {
  GgufArray a;
  a.element = element;
  const uint8_t* p = static_cast<const uint8_t*>(data);
  a.packed.assign(p, p + bytes);
  return {GgufType::kArray, std::move(a)};
}

void put(std::string& out, uint64_t v, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(v >> 8 * i);
}
void put_text(std::string& out, std::string_view s) {
  put(out, s.size(), 8);
  out += s;
}
void put_array(std::string& out, const GgufArray& a) {
  put(out, static_cast<uint32_t>(a.element), 4);
  put(out, static_cast<uint64_t>(a.size()), 8);
  out.append(reinterpret_cast<const char*>(a.packed.data()), a.packed.size());
  for (const std::string& s : a.strings) put_text(out, s);
  for (const GgufValue& v : a.arrays) put_array(out, std::get<GgufArray>(v.value));
}
void put_value(std::string& out, const GgufValue& v) {
  if (auto* s = std::get_if<std::string>(&v.value)) return put_text(out, *s);
  if (auto* a = std::get_if<GgufArray>(&v.value)) return put_array(out, *a);
  uint64_t bits = 0;
  if (auto* u = std::get_if<uint64_t>(&v.value)) bits = *u;
  if (auto* i = std::get_if<int64_t>(&v.value)) bits = static_cast<uint64_t>(*i);
  if (auto* b = std::get_if<bool>(&v.value)) bits = *b;
  if (auto* d = std::get_if<double>(&v.value)) {
    bits = v.type == GgufType::kF32 ? std::bit_cast<uint32_t>(static_cast<float>(*d))
                                    : std::bit_cast<uint64_t>(*d);
  }
  put(out, bits, fixed_bytes(v.type));
}

}  // namespace

GgufValue gguf_u32(uint32_t v) { return {GgufType::kU32, uint64_t{v}}; }
GgufValue gguf_f32(float v) { return {GgufType::kF32, static_cast<double>(v)}; }
GgufValue gguf_bool(bool v) { return {GgufType::kBool, v}; }
GgufValue gguf_string(std::string v) { return {GgufType::kString, std::move(v)}; }
GgufValue gguf_strings(std::vector<std::string> v) {
  GgufArray a;
  a.element = GgufType::kString;
  a.strings = std::move(v);
  return {GgufType::kArray, std::move(a)};
}
GgufValue gguf_i32s(const std::vector<int32_t>& v) {
  return packed_array(GgufType::kI32, v.data(), v.size() * 4);
}
GgufValue gguf_f32s(const std::vector<float>& v) {
  return packed_array(GgufType::kF32, v.data(), v.size() * 4);
}

int64_t write_gguf(const std::string& path, const GgufMetadata& metadata,
                   const std::vector<TensorSource>& tensors) {
  uint64_t align = 32;
  std::string header = "GGUF";
  put(header, 3, 4);
  put(header, tensors.size(), 8);
  put(header, metadata.size(), 8);
  std::set<std::string_view> keys, names;
  for (const auto& [key, value] : metadata) {
    CHECK(keys.insert(key).second);
    if (key == "general.alignment") align = std::get<uint64_t>(value.value);
    put_text(header, key);
    put(header, static_cast<uint32_t>(value.type), 4);
    put_value(header, value);
  }
  CHECK(std::has_single_bit(align));
  auto padded = [align](uint64_t n) { return (n + align - 1) / align * align; };
  uint64_t offset = 0;
  for (const TensorSource& t : tensors) {
    CHECK(names.insert(t.name).second);
    CHECK(t.name.size() < 64u);
    CHECK(t.shape.size() <= static_cast<size_t>(kMaxDims));
    put_text(header, t.name);
    put(header, t.shape.size(), 4);
    for (size_t i = t.shape.size(); i > 0; --i)
      put(header, static_cast<uint64_t>(t.shape[i - 1]), 8);
    put(header, ggml_of_dtype(t.dtype), 4);
    put(header, offset, 8);
    std::optional<int64_t> bytes = tensor_bytes(t.dtype, t.shape);
    CHECK(bytes.has_value());
    offset = padded(offset + static_cast<uint64_t>(*bytes));
  }
  header.resize(padded(header.size()), '\0');
  AtomicFile file(path);
  file.write(header);
  const std::string zeros(align, '\0');
  for (const TensorSource& t : tensors) {
    int64_t before = file.size();
    t.write([&](const void* data, size_t bytes) { file.write(data, bytes); });
    CHECK(file.size() - before == tensor_bytes(t.dtype, t.shape).value());
    uint64_t size = static_cast<uint64_t>(file.size());
    file.write(zeros.data(), padded(size) - size);
  }
  file.commit();
  return file.size();
}

}  // namespace wels
