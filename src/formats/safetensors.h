// safetensors: Hugging Face's checkpoint format.
//
//   offset 0      u64, little endian: n, length of the header
//   offset 8      n bytes of JSON: {"<name>": {"dtype": "BF16", "shape": [rows, cols],
//   "data_offsets": [begin, end]}, ...,
//                 "__metadata__": {"<key>": "<string>", ...}}, padded with spaces
//   offset 8 + n  the data; offsets count from here. Tensors cover it without overlap and without
//   holes.
//
// A model larger than one file is a folder: model-00001-of-00002.safetensors, ... and
// model.safetensors.index.json, whose "weight_map" names the file of every tensor. Source:
// github.com/huggingface/safetensors, README "Format".
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/tensor_entry.h"

namespace wels {

struct SafetensorsContent {
  std::vector<TensorEntry> tensors;             // by offset
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

// Parses the bytes of one file; the entries point into them. `where` names the file in messages.
// Throws Error naming the tensor and the numbers: truncated, oversized or malformed header, unknown
// dtype, offsets that are out of range, overlap, leave holes or do not match shape and dtype, names
// that appear twice.
SafetensorsContent parse_safetensors(std::span<const uint8_t> bytes, const std::string& where);

// An opened file, or a folder with model.safetensors or with shards and their index. Memory-mapped:
// opening reads headers only. Movable; entries stay valid while it lives.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::string& file_or_folder);
  SafetensorsReader(SafetensorsReader&&) noexcept;
  SafetensorsReader& operator=(SafetensorsReader&&) noexcept;
  ~SafetensorsReader();

  const std::string& path() const { return path_; }
  const std::vector<TensorEntry>& tensors() const { return tensors_; }  // shard by shard, by offset
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // of all shards
  const TensorEntry* find(std::string_view name) const;  // nullptr: not there
  const TensorEntry& at(std::string_view name) const;    // throws Error: not there
  int64_t data_bytes() const;                            // of all tensors

 private:
  void open_file(const std::string& path);
  void open_index(const std::string& folder, const std::string& index_path);
  void add(const std::string& file, SafetensorsContent content);

  std::string path_;
  struct Files;
  std::unique_ptr<Files> files_;
  std::vector<TensorEntry> tensors_;
  std::vector<std::string> file_of_;  // parallel to tensors_
  std::map<std::string, std::string> metadata_;
  std::unordered_map<std::string, size_t> by_name_;
};

// Writes one file, atomically: the old one stays until the new one is complete and synced. Data
// begins at a multiple of 64 and tensors are ordered by element size, so that all are aligned.
// Names must differ. Throws Error (full disk, ...).
void write_safetensors(const std::string& path, const std::vector<TensorSource>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// Writes model.safetensors into `folder` (made if missing), or shards of at most max_shard_bytes of
// data and their index (one larger tensor gets a shard of its own). Refuses a folder that holds a
// model already: write a new folder and rename it, then no crash can mix two models. Returns the
// files written, the index last.
std::vector<std::string> write_safetensors_folder(
    const std::string& folder, const std::vector<TensorSource>& tensors,
    int64_t max_shard_bytes = int64_t{5} << 30,
    const std::map<std::string, std::string>& metadata = {});

}  // namespace wels
