#include "formats/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/check.h"
#include "base/error.h"
#include "base/file.h"
#include "formats/json.h"

namespace wels {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation
constexpr const char* kMetadata = "__metadata__";
constexpr const char* kIndexName = "model.safetensors.index.json";

struct DTypeName {
  const char* name;
  DType dtype;
};
constexpr DTypeName kDTypeNames[] = {
    {"F64", DType::kF64},   {"F32", DType::kF32},        {"F16", DType::kF16},
    {"BF16", DType::kBF16}, {"F8_E4M3", DType::kF8E4M3}, {"I64", DType::kI64},
    {"I32", DType::kI32},   {"I16", DType::kI16},        {"I8", DType::kI8},
    {"U8", DType::kU8},     {"BOOL", DType::kBool},
};

const char* safetensors_name(DType dtype) {
  for (const DTypeName& d : kDTypeNames) {
    if (d.dtype == dtype) return d.name;
  }
  CHECK(false);
  return "";
}

std::optional<int64_t> natural(const json& v) {
  if (!v.is_number_unsigned() || v.get<uint64_t>() > uint64_t{INT64_MAX}) return std::nullopt;
  return static_cast<int64_t>(v.get<uint64_t>());
}

struct Placed {
  TensorEntry entry;
  int64_t begin, end;  // offsets into the data
};

// One entry of the header. Offsets are checked against each other and the file by the caller.
Placed parse_entry(const std::string& name, const json& j, const std::string& where) {
  auto fail = [&](const std::string& what, const std::string& hint = "") -> void {
    throw Error(where, fmt::format("tensor {}: {}", printable(name), what), hint);
  };
  if (!j.is_object()) fail("its header entry is not an object");
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!j.contains(key)) fail(fmt::format("no {} in its header entry", key));
  }
  Placed p;
  p.entry.name = name;
  const json& dtype = j["dtype"];
  const DTypeName* known = nullptr;
  for (const DTypeName& d : kDTypeNames) {
    if (dtype.is_string() && dtype.get_ref<const std::string&>() == d.name) known = &d;
  }
  if (!known) {
    fail(fmt::format("dtype {} is not supported",
                     printable(dtype.dump(-1, ' ', false, json::error_handler_t::replace))),
         "supported: F64 F32 F16 BF16 F8_E4M3 I64 I32 I16 I8 U8 BOOL");
  }
  p.entry.dtype = known->dtype;
  const json& shape = j["shape"];
  if (!shape.is_array() || shape.size() > 8) fail("shape must be a list of at most 8 numbers");
  for (const json& s : shape) {
    std::optional<int64_t> n = natural(s);
    if (!n)
      fail(fmt::format("shape contains {}",
                       printable(s.dump(-1, ' ', false, json::error_handler_t::replace))));
    p.entry.shape.push_back(*n);
  }
  const json& offsets = j["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !natural(offsets[0]) || !natural(offsets[1])) {
    fail("data_offsets must be two numbers");
  }
  p.begin = *natural(offsets[0]);
  p.end = *natural(offsets[1]);
  if (p.end < p.begin) fail(fmt::format("data_offsets [{}, {}] run backwards", p.begin, p.end));
  std::optional<int64_t> bytes = tensor_bytes(p.entry.dtype, p.entry.shape);
  if (!bytes || *bytes != p.end - p.begin) {
    fail(fmt::format("shape [{}] of {} needs {} bytes, data_offsets [{}, {}] hold {}",
                     fmt::join(p.entry.shape, ", "), known->name,
                     bytes ? std::to_string(*bytes) : "too many", p.begin, p.end, p.end - p.begin));
  }
  return p;
}

void check_coverage(const std::vector<Placed>& placed, int64_t data_bytes,
                    const std::string& where) {
  int64_t covered = 0;
  const Placed* previous = nullptr;
  for (const Placed& p : placed) {
    std::string name = printable(p.entry.name);
    if (p.end > data_bytes) {
      throw Error(
          where,
          fmt::format("tensor {}: its data ends at offset {}, the file has {} bytes of data", name,
                      p.end, data_bytes),
          "the file is truncated or damaged; copy it again");
    }
    if (p.begin < covered) {
      throw Error(
          where,
          fmt::format("tensor {} [{}, {}] overlaps tensor {} [{}, {}]", name, p.begin, p.end,
                      printable(previous->entry.name), previous->begin, previous->end),
          "the file is damaged");
    }
    if (p.begin > covered) {
      throw Error(where,
                  fmt::format("{} bytes before tensor {} at offset {} belong to no tensor",
                              p.begin - covered, name, p.begin),
                  "the file is damaged");
    }
    covered = p.end;
    previous = &p;
  }
  if (covered != data_bytes) {
    throw Error(where,
                fmt::format("the tensors end at offset {}, the file has {} bytes of data", covered,
                            data_bytes),
                "the file is damaged");
  }
}

void read_metadata(const json& j, SafetensorsContent& out, const std::string& where) {
  if (!j.is_object()) throw Error(where, "__metadata__ is not an object of strings");
  for (const auto& [key, value] : j.items()) {
    if (!value.is_string())
      throw Error(where, fmt::format("__metadata__.{} is not a string", printable(key)));
    out.metadata[key] = value.get<std::string>();
  }
}

}  // namespace

SafetensorsContent parse_safetensors(std::span<const uint8_t> bytes, const std::string& where) {
  if (bytes.size() < 8) {
    throw Error(where, fmt::format("{} bytes are too few for a safetensors file", bytes.size()),
                "the file is truncated; copy it again");
  }
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | bytes[static_cast<size_t>(i)];
  if (header_bytes > kMaxHeaderBytes) {
    throw Error(where, fmt::format("header length {} exceeds {}", header_bytes, kMaxHeaderBytes),
                "this is no safetensors file");
  }
  if (header_bytes > bytes.size() - 8) {
    throw Error(
        where,
        fmt::format("header length {} exceeds the file's {} bytes", header_bytes, bytes.size()),
        "the file is truncated or no safetensors file");
  }
  std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  if (text.empty() || text[0] != '{')
    throw Error(where, "the header does not begin with {", "this is no safetensors file");
  json header = parse_json(text, where);
  std::span<const uint8_t> data = bytes.subspan(8 + header_bytes);

  SafetensorsContent out;
  std::vector<Placed> placed;
  placed.reserve(header.size());
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata) {
      read_metadata(value, out, where);
    } else {
      placed.push_back(parse_entry(name, value, where));
    }
  }
  std::sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) {
    return std::tie(a.begin, a.end, a.entry.name) < std::tie(b.begin, b.end, b.entry.name);
  });
  check_coverage(placed, static_cast<int64_t>(data.size()), where);
  out.tensors.reserve(placed.size());
  for (Placed& p : placed) {
    p.entry.data = data.subspan(static_cast<size_t>(p.begin), static_cast<size_t>(p.end - p.begin));
    out.tensors.push_back(std::move(p.entry));
  }
  return out;
}

struct SafetensorsReader::Files {
  std::vector<MappedFile> mapped;
};

SafetensorsReader::SafetensorsReader(SafetensorsReader&&) noexcept = default;
SafetensorsReader& SafetensorsReader::operator=(SafetensorsReader&&) noexcept = default;
SafetensorsReader::~SafetensorsReader() = default;

SafetensorsReader::SafetensorsReader(const std::string& file_or_folder)
    : path_(file_or_folder), files_(std::make_unique<Files>()) {
  std::error_code ec;
  if (!fs::is_directory(file_or_folder, ec)) {
    open_file(file_or_folder);
    return;
  }
  fs::path folder = file_or_folder;
  if (fs::exists(folder / kIndexName, ec)) {
    open_index(file_or_folder, (folder / kIndexName).string());
  } else if (fs::exists(folder / "model.safetensors", ec)) {
    open_file((folder / "model.safetensors").string());
  } else {
    throw Error(file_or_folder,
                fmt::format("neither model.safetensors nor {} is in this folder", kIndexName),
                "give the folder of a Hugging Face checkpoint");
  }
}

void SafetensorsReader::add(const std::string& file, SafetensorsContent content) {
  for (TensorEntry& e : content.tensors) {
    auto [it, fresh] = by_name_.emplace(e.name, tensors_.size());
    if (!fresh) {
      throw Error(path_,
                  fmt::format("tensor {} is in both {} and {}", printable(e.name),
                              file_of_[it->second], file),
                  "the checkpoint is damaged");
    }
    tensors_.push_back(std::move(e));
    file_of_.push_back(file);
  }
  metadata_.merge(content.metadata);
}

void SafetensorsReader::open_file(const std::string& path) {
  MappedFile file(path);
  add(fs::path(path).filename().string(), parse_safetensors(file.bytes(), path));
  files_->mapped.push_back(std::move(file));
}

void SafetensorsReader::open_index(const std::string& folder, const std::string& index_path) {
  json index = parse_json(read_file(index_path), index_path);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw Error(index_path, "no object \"weight_map\"", "the index is damaged; copy it again");
  }
  const json& weight_map = index["weight_map"];
  std::set<std::string> shards;
  for (const auto& [name, file] : weight_map.items()) {
    if (!file.is_string())
      throw Error(index_path,
                  fmt::format("the file of tensor {} is not a string", printable(name)));
    const std::string& shard = file.get_ref<const std::string&>();
    // A shard lies beside its index; anything else could read files the user did not name.
    if (shard.empty() || shard.find('/') != std::string::npos ||
        shard.find('\0') != std::string::npos || shard == "." || shard == "..") {
      throw Error(index_path,
                  fmt::format("tensor {} is said to be in \"{}\", which is no plain file name",
                              printable(name), printable(shard)));
    }
    shards.insert(shard);
  }
  std::error_code ec;
  for (const std::string& shard : shards) {
    fs::path p = fs::path(folder) / shard;
    if (!fs::exists(p, ec)) {
      throw Error(folder,
                  fmt::format("shard {} is missing; the index names {} shards", printable(shard),
                              shards.size()),
                  "copy the missing file");
    }
    open_file(p.string());
  }
  for (size_t i = 0; i < tensors_.size(); ++i) {
    auto it = weight_map.find(tensors_[i].name);
    if (it == weight_map.end()) {
      throw Error(index_path,
                  fmt::format("tensor {} of {} is not in the index", printable(tensors_[i].name),
                              file_of_[i]),
                  "index and shards belong to different checkpoints");
    }
    if (it->get_ref<const std::string&>() != file_of_[i]) {
      throw Error(
          index_path,
          fmt::format("tensor {} is said to be in {} but is in {}", printable(tensors_[i].name),
                      printable(it->get_ref<const std::string&>()), file_of_[i]),
          "index and shards belong to different checkpoints");
    }
  }
  for (const auto& [name, file] : weight_map.items()) {
    if (!by_name_.contains(name)) {
      throw Error(index_path,
                  fmt::format("tensor {} is not in {}", printable(name),
                              printable(file.get_ref<const std::string&>())),
                  "index and shards belong to different checkpoints");
    }
  }
}

const TensorEntry* SafetensorsReader::find(std::string_view name) const {
  auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

const TensorEntry& SafetensorsReader::at(std::string_view name) const {
  const TensorEntry* e = find(name);
  if (!e)
    throw Error(path_, fmt::format("tensor {} is missing", name),
                "the checkpoint does not fit its config.json");
  return *e;
}

int64_t SafetensorsReader::data_bytes() const {
  int64_t n = 0;
  for (const TensorEntry& e : tensors_) n += static_cast<int64_t>(e.data.size());
  return n;
}

namespace {

int64_t source_bytes(const TensorSource& t) {
  std::optional<int64_t> bytes = tensor_bytes(t.dtype, t.shape);
  CHECK(bytes.has_value());
  return *bytes;
}

void write_file(const std::string& path, std::vector<const TensorSource*> tensors,
                const std::map<std::string, std::string>& metadata) {
  // Wide elements first: every tensor is then aligned to its element size.
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](auto* a, auto* b) { return info(a->dtype).bytes > info(b->dtype).bytes; });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  std::set<std::string_view> names;
  int64_t offset = 0;
  // ordered_json looks a key up by scanning all others; pushing pairs keeps the header linear in
  // the number of tensors.
  auto& pairs = header.get_ref<nlohmann::ordered_json::object_t&>();
  for (const TensorSource* t : tensors) {
    CHECK(t->name != kMetadata);
    CHECK(names.insert(t->name).second);
    int64_t end = offset + source_bytes(*t);
    nlohmann::ordered_json entry;
    entry["dtype"] = safetensors_name(t->dtype);
    entry["shape"] = t->shape;
    entry["data_offsets"] = {offset, end};
    static_cast<std::vector<nlohmann::ordered_json::object_t::value_type>&>(pairs).emplace_back(
        t->name, std::move(entry));
    offset = end;
  }
  std::string text = header.dump();
  text.append((64 - (8 + text.size()) % 64) % 64, ' ');
  uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(text.size() >> 8 * i);

  AtomicFile file(path);
  file.write(length, 8);
  file.write(text);
  for (const TensorSource* t : tensors) {
    int64_t before = file.size();
    t->write([&](const void* data, size_t bytes) { file.write(data, bytes); });
    CHECK(file.size() - before == source_bytes(*t));
  }
  file.commit();
}

}  // namespace

void write_safetensors(const std::string& path, const std::vector<TensorSource>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const TensorSource*> all;
  for (const TensorSource& t : tensors) all.push_back(&t);
  write_file(path, std::move(all), metadata);
}

std::vector<std::string> write_safetensors_folder(
    const std::string& folder, const std::vector<TensorSource>& tensors, int64_t max_shard_bytes,
    const std::map<std::string, std::string>& metadata) {
  CHECK(max_shard_bytes > 0);
  make_folder(folder);
  for (const auto& f : fs::directory_iterator(folder)) {
    std::string name = f.path().filename().string();
    if (name == kIndexName || f.path().extension() == ".safetensors") {
      throw Error(folder, fmt::format("the folder holds a model already ({})", name),
                  "choose another folder");
    }
  }
  std::vector<std::vector<const TensorSource*>> shards(1);
  int64_t filled = 0, total = 0;
  for (const TensorSource& t : tensors) {
    int64_t bytes = source_bytes(t);
    if (!shards.back().empty() && filled + bytes > max_shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(&t);
    filled += bytes;
    total += bytes;
  }
  std::vector<std::string> files;
  if (shards.size() == 1) {
    write_file((fs::path(folder) / "model.safetensors").string(), shards[0], metadata);
    return {"model.safetensors"};
  }
  json index = {{"metadata", {{"total_size", total}}}, {"weight_map", json::object()}};
  for (size_t i = 0; i < shards.size(); ++i) {
    files.push_back(fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size()));
    write_file((fs::path(folder) / files.back()).string(), shards[i], metadata);
    for (const TensorSource* t : shards[i])
      CHECK(index["weight_map"].emplace(t->name, files.back()).second);
  }
  write_file_atomic((fs::path(folder) / kIndexName).string(), index.dump(2) + "\n");
  files.push_back(kIndexName);
  return files;
}

}  // namespace wels
